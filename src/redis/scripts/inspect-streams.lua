-- Whether event streams still are what their reader knew.
--   KEYS[1] a key that only a flush of the whole database takes away   KEYS[2…] the streams
--   ARGV[1] a new value for the first key
-- Returns {value of the first key, Redis' clock in ms, {for each stream what XINFO says of it}}:
--   {'none'}, {'other'} for a key that is no stream, or {'stream', first id or '', last id, length, entries ever added or -1}.
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  -- Fails on a replica and when memory is full; then nothing is known of flushes.
  redis.pcall('SET', KEYS[1], ARGV[1])
  epoch = redis.call('GET', KEYS[1]) or ''
end

local function look(key)
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
for i = 2, #KEYS do streams[i - 1] = look(KEYS[i]) end
local time = redis.call('TIME')
return {epoch, time[1] * 1000 + math.floor(time[2] / 1000), streams}
