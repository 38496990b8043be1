-- How one partition stands, for a reader: ARGV new epoch, `adopt` or nothing. Returns the epoch, the last offset
-- and, where the log was damaged and begins anew, why.
-- It writes even if nothing changes: on a replica or a full server the write fails, and the reader gets the reason now
-- instead of waiting for records that cannot come.
local there = look()
if there.foreign and ARGV[2] ~= 'adopt' then return foreign(there.foreign) end
if not there.epoch then
  local epoch, last = begin(ARGV[1])
  return { epoch, last, there.damage or there.foreign }
end
local written = redis.pcall('HSET', KEYS[1], 'epoch', there.epoch, 'last', number(there.last))
if type(written) == 'table' and written.err then
  make_room(written.err)
  return redis.error_reply(written.err)
end
return { there.epoch, number(there.last) }
