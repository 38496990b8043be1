-- The settings of the whole log. The first node sets them: KEYS settings; ARGV partitions, `adopt` or nothing.
-- Returns the number of partitions.
local FORMAT = 'fanfare 1'
local kind = redis.call('TYPE', KEYS[1]).ok
local adopt = ARGV[2] == 'adopt'
if kind ~= 'none' and kind ~= 'hash' then
  if not adopt then return redis.error_reply('FOREIGN ' .. KEYS[1] .. ' holds a ' .. kind .. ' of another program') end
  redis.call('UNLINK', KEYS[1])
end
local settings = redis.call('HMGET', KEYS[1], 'format', 'partitions')
local format, partitions = settings[1], settings[2]
local counted = partitions and string.find(partitions, '^[1-9]%d*$')
if format == FORMAT then
  -- Changes nothing, and is refused where writes are: on a replica.
  redis.call('HDEL', KEYS[1], '')
else
  -- Before there was a format, the number stood alone.
  local old = counted and not format and redis.call('HLEN', KEYS[1]) == 1
  if redis.call('EXISTS', KEYS[1]) == 1 and not old and not adopt then
    return redis.error_reply('FOREIGN ' .. KEYS[1] .. ' holds a hash of another program')
  end
  redis.call('HSET', KEYS[1], 'format', FORMAT)
end
if counted then return partitions end
redis.call('HSET', KEYS[1], 'partitions', ARGV[1])
return ARGV[1]
