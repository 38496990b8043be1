-- The number of partitions of the log, set by whoever comes first: KEYS settings; ARGV partitions.
local partitions = redis.call('HGET', KEYS[1], 'partitions')
if partitions then return partitions end
redis.call('HSET', KEYS[1], 'partitions', ARGV[1])
return ARGV[1]
