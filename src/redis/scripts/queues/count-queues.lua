-- Counts the jobs of several queues by state. It breaks the rule that a script uses the keys of one queue, so that a
-- listing of queues is a few commands.
--   KEYS  for each queue its meta key, from which the others are named
-- Reply: for each queue {waiting, active, delayed, prioritized, waiting-children, completed, failed}, or 0 where a key has
-- another type.
local sets = {'delayed', 'prioritized', 'waiting-children', 'completed', 'failed'}

local function lengthOf(list)
  local length = redis.call('LLEN', list)
  -- BullMQ before version 5 ends a list with a marker.
  local last = length > 0 and redis.call('LINDEX', list, -1)
  if last and string.sub(last, 1, 2) == '0:' then return length - 1 end
  return length
end

local function count(base)
  -- Old versions of BullMQ kept the waiting jobs of a paused queue in `paused`.
  local waiting = lengthOf(base .. 'wait') + lengthOf(base .. 'paused')
  local counts = {waiting, redis.call('LLEN', base .. 'active')}
  for _, set in ipairs(sets) do counts[#counts + 1] = redis.call('ZCARD', base .. set) end
  return counts
end

local replies = {}
for at, meta in ipairs(KEYS) do
  local isCounted, counts = pcall(count, string.sub(meta, 1, -5))
  replies[at] = isCounted and counts or 0
end
return replies
