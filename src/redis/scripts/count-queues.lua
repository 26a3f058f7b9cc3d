-- Counts the jobs of several queues by state.
--   KEYS  for each queue: wait, paused, active (lists), then its sorted sets, as many as KEYS per queue leave
--   ARGV  keys per queue
-- Reply: for each queue {waiting, active, the size of each sorted set}, or 0 where a key has another type.
local keysPerQueue = tonumber(ARGV[1])

local function lengthOf(list)
  local length = redis.call('LLEN', list)
  -- BullMQ before version 5 ends a list with a marker.
  local last = length > 0 and redis.call('LINDEX', list, -1)
  if last and string.sub(last, 1, 2) == '0:' then return length - 1 end
  return length
end

local function count(first)
  local counts = {lengthOf(KEYS[first]) + lengthOf(KEYS[first + 1]), redis.call('LLEN', KEYS[first + 2])}
  for at = first + 3, first + keysPerQueue - 1 do counts[#counts + 1] = redis.call('ZCARD', KEYS[at]) end
  return counts
end

local replies = {}
for first = 1, #KEYS, keysPerQueue do
  local isCounted, counts = pcall(count, first)
  replies[#replies + 1] = isCounted and counts or 0
end
return replies
