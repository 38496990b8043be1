-- Appends where append.lua could not: the partition is taken as it stands, or begun, unless it is not Fanfare's.
local there = look()
if err then
  make_room(err)
  -- Where the keys do not explain it, the server refuses every write.
  if there.epoch == epoch and there.last == last then return redis.error_reply(err) end
end
if there.foreign and ARGV[2] ~= 'adopt' then return foreign(there.foreign) end
-- The record before is unknown: another program may have written it.
epoch, last, tail = there.epoch, there.last, nil
if not epoch then epoch, last = begin(ARGV[1]) end
err = add(redis.pcall, ARGV[FIRST])
if err then return redis.error_reply(err) end
add_rest()
return { epoch, last, there.damage or there.foreign }
