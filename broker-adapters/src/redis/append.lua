-- Appends envelopes to one partition: KEYS meta, log; ARGV new epoch, records to keep, envelopes...
-- Returns the epoch and the offset of the last one.
-- An error means that no envelope was stored: nothing is written to the log before the first XADD, and once
-- that has passed, no later command can fail (Redis checks memory, role and disk at a script's first write).
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'last')
local epoch, last = meta[1], tonumber(meta[2] or 0)

local function begin()
  redis.call('UNLINK', KEYS[2])
  epoch, last = ARGV[1], 0
end

local function add(call, envelope)
  local id = string.format('%.0f-0', last + 1)
  local added = call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], id, epoch, envelope)
  if type(added) == 'table' and added.err then return added.err end
  last = last + 1
end

if not epoch then begin() end
local err = add(redis.pcall, ARGV[3])
if err then
  if string.find(err, 'OOM', 1, true) == 1 then
    -- Full, by size and not by number: a quarter of what this partition keeps makes room for whoever tries again.
    local length = redis.call('XLEN', KEYS[2])
    if length > 64 then redis.call('XTRIM', KEYS[2], 'MAXLEN', math.floor(length * 3 / 4)) end
  end
  if not string.find(err, 'equal or smaller', 1, true) then return redis.error_reply(err) end
  -- Somebody else wrote to the stream: go on behind it, or anew if its number is no offset any more.
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = tonumber(string.match(info[i + 1], '^%d+')) end
  end
  if last >= 2 ^ 52 then begin() end
  add(redis.call, ARGV[3])
end
for i = 4, #ARGV do add(redis.call, ARGV[i]) end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'last', string.format('%.0f', last))
return { epoch, last }
