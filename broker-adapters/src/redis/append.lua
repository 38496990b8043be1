-- Appends envelopes to one partition: KEYS meta, log; ARGV new epoch, `adopt` or nothing, records to keep, envelopes...
-- Returns the epoch, the offset of the last one and, where the log was damaged and begins anew, why.
-- An error means that no envelope was stored: nothing is written to the log before the first XADD, and once
-- that has passed, no later command can fail (Redis checks memory, role and disk at a script's first write).
-- This is the usual way, kept short; where it does not store, partition.lua and append_again.lua follow.
local FIRST = 4
local meta = redis.pcall('HMGET', KEYS[1], 'epoch', 'last', 'tail')
local epoch, last, tail, err = meta[1], meta[2], meta[3]

-- Each entry names the record before it, by id and time: a log that was set back and has grown again shows it.
local function add(call, envelope)
  local id = string.format('%.0f-0', last + 1)
  local added
  if tail then
    added = call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], id, epoch, envelope, 'before', tail)
  else
    added = call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], id, epoch, envelope)
  end
  if type(added) == 'table' and added.err then return added.err end
  last, tail = last + 1, string.sub(envelope, 5, 28)
end

local function add_rest()
  for i = FIRST + 1, #ARGV do add(redis.call, ARGV[i]) end
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'last', string.format('%.0f', last), 'tail', tail)
end

if epoch and last and #epoch == 16 and not string.find(epoch, '%X') and #last < 16 and string.find(last, '^%d+$') then
  last = tonumber(last)
  err = add(redis.pcall, ARGV[FIRST])
  if not err then
    add_rest()
    return { epoch, last }
  end
end

