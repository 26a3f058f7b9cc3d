-- Reads entries of an event stream, oldest first, until they would hold more than a number of bytes. Writes nothing.
--   KEYS[1] the stream   ARGV[1] id of the first entry   ARGV[2] most entries   ARGV[3] most bytes of the page
--   ARGV[4] most bytes of an entry
-- Returns {entries, 1 if there may be more}. The values of the entry ARGV[1] itself are left out: the caller has them.
-- The size of a value stands for one with which its entry would be too large.
-- Nothing measures an entry but reading it, so entries are read a few at a time.
local STEP_MAX = 4

local left, entryMax = tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, start, step = {}, ARGV[1], 1

local function measure(values)
  local bytes = 0
  for i, value in ipairs(values) do
    if bytes + #value > entryMax then
      values[i] = #value
    else
      bytes = bytes + #value
    end
  end
  return bytes
end

local isFirst = true
while #entries < tonumber(ARGV[2]) do
  local wanted = math.min(step, ARGV[2] - #entries)
  local found = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', wanted)
  local largest = 1
  for _, entry in ipairs(found) do
    if entry[1] == ARGV[1] then
      entries[1] = {entry[1], {}}
    else
      local bytes = measure(entry[2])
      if bytes > left and not isFirst then return {entries, 1} end
      entries[#entries + 1] = entry
      isFirst = false
      left = left - bytes
      largest = math.max(largest, bytes)
    end
    start = '(' .. entry[1]
  end
  if #found < wanted then return {entries, 0} end
  step = math.max(1, math.min(STEP_MAX, math.floor(left / largest)))
end
return {entries, 1}
