-- Reports the facts of XINFO about each event stream, so that its reader can detect lost entries.
--   KEYS[1] flush marker: a key that only a flush of the database removes   KEYS[2…] the streams
--   ARGV[1] the marker's value, if it has to be created
-- Returns {the marker's value or '', Redis' clock in ms, {one entry per stream}}. An entry is {'none'} for a missing key,
-- {'other'} for a key of another type, or {'stream', first id or '', last id, length, entries ever added or -1}.
local marker = redis.call('GET', KEYS[1])
if not marker then
  -- SET fails on a replica and when memory is full. The reader then cannot detect a flush.
  redis.pcall('SET', KEYS[1], ARGV[1])
  marker = redis.call('GET', KEYS[1]) or ''
end

local function inspect(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then
    return {string.find(info.err, 'no such key', 1, true) and 'none' or 'other'}
  end
  local facts = {}
  for i = 1, #info, 2 do facts[info[i]] = info[i + 1] end
  local first = facts['first-entry']
  return {
    'stream', first and first[1] or '', facts['last-generated-id'], facts['length'], facts['entries-added'] or -1
  }
end

local streams = {}
for i = 2, #KEYS do streams[i - 1] = inspect(KEYS[i]) end
local time = redis.call('TIME')
return {marker, time[1] * 1000 + math.floor(time[2] / 1000), streams}
