-- How one partition stands: KEYS meta, log; ARGV new epoch. Returns the epoch and the last offset.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'last')
if meta[1] then return meta end
redis.call('UNLINK', KEYS[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'last', 0)
return { ARGV[1], 0 }
