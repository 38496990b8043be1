-- Looks at the keys of one partition: KEYS meta, log. The scripts on partitions begin with this text.

-- From here on, 16 digits, an id is no offset: a double counts little further.
local LIMIT = 10 ^ 15

local function is_epoch(text)
  return text and #text == 16 and not string.find(text, '%X') and text ~= '0000000000000000'
end

local function is_offset(text)
  return text and #text < 16 and string.find(text, '^%d+$')
end

-- The epoch that an entry of the log carries; nil if Fanfare did not write it.
local function epoch_of(entry)
  local fields = entry and entry[2]
  local ours = fields and (#fields == 2 or (#fields == 4 and fields[3] == 'before'))
  if ours and string.find(entry[1], '^%d+%-0$') and is_epoch(fields[1]) then return fields[1] end
end

local function stream()
  local info, found = redis.call('XINFO', 'STREAM', KEYS[2]), {}
  for i = 1, #info, 2 do found[info[i]] = info[i + 1] end
  local first, last = epoch_of(found['first-entry']), epoch_of(found['last-entry'])
  return {
    top = string.match(found['last-generated-id'], '^%d+'),
    first = first, last = last,
    -- An empty stream without readers of its own holds nothing that could be lost.
    ours = first or last or (found['length'] == 0 and found['groups'] == 0),
  }
end

local function other(key, kind)
  return { foreign = key .. ' holds a ' .. kind .. ' of another program' }
end

-- Returns one of: `epoch` and `last`, how the partition stands; `foreign`, which of its keys is not Fanfare's;
-- `damage`, what is wrong with a log of Fanfare's; nothing, where there is no log yet.
local function look()
  local kind = { redis.call('TYPE', KEYS[1]).ok, redis.call('TYPE', KEYS[2]).ok }
  if kind[1] ~= 'none' and kind[1] ~= 'hash' then return other(KEYS[1], kind[1]) end
  if kind[2] ~= 'none' and kind[2] ~= 'stream' then return other(KEYS[2], kind[2]) end
  local log = kind[2] == 'stream' and stream()
  if kind[1] == 'none' then
    if not log then return {} end
    if not log.ours then return other(KEYS[2], kind[2]) end
    return { damage = KEYS[1] .. ' is gone' }
  end
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'tail')
  local epoch, last = meta[1], meta[2]
  if not is_epoch(epoch) then
    local others = redis.call('HLEN', KEYS[1]) - (epoch and 1 or 0) - (last and 1 or 0) - (meta[3] and 1 or 0)
    local ours = log and log.ours
    if others > 0 and not ours then return other(KEYS[1], kind[1]) end
    if log and not ours then return other(KEYS[2], kind[2]) end
    return { damage = 'the field `epoch` of ' .. KEYS[1] .. ' is no epoch' }
  end
  if not is_offset(last) then return { damage = 'the field `last` of ' .. KEYS[1] .. ' is no offset' } end
  last = tonumber(last)
  if log then
    if tonumber(log.top) >= LIMIT then
      return { damage = 'another program wrote to ' .. KEYS[2] .. ' with an id that leaves no room after it' }
    end
    if (log.first or epoch) ~= epoch or (log.last or epoch) ~= epoch then
      return { damage = KEYS[1] .. ' and ' .. KEYS[2] .. ' are of different logs' }
    end
    -- Another program may have written to the stream, or set the field back: the next record comes after both.
    last = math.max(last, tonumber(log.top))
  end
  return { epoch = epoch, last = last }
end

local function foreign(why)
  return redis.error_reply('FOREIGN ' .. why)
end

-- A new log. What stood in the keys was Fanfare's, or is given up with `?adopt=true`.
local function begin(epoch)
  redis.call('UNLINK', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'last', 0)
  return epoch, 0
end

local function number(offset)
  return string.format('%.0f', offset)
end

-- The server is full by size, not by number of records: dropping a quarter of this partition makes room for the next try.
local function make_room(err)
  if string.find(err, 'OOM', 1, true) ~= 1 or redis.call('TYPE', KEYS[2]).ok ~= 'stream' then return end
  local length = redis.call('XLEN', KEYS[2])
  if length > 64 then redis.call('XTRIM', KEYS[2], 'MAXLEN', math.floor(length * 3 / 4)) end
end

