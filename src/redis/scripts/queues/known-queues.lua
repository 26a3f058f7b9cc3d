-- Shared by the scripts that change the set of known queues. KEYS[1]: sorted set, names of queues by their last use.
-- `now()`: ms since 1970.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Removes the names that were unused for the longest, so that at most `max` are left; 1,000 of them at most, which
-- bounds the time. Returns how many were removed, and how many are left.
local function trim(max)
  local known = redis.call('ZCARD', KEYS[1])
  local removed = math.min(math.max(known - max, 0), 1000)
  if removed > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, removed - 1) end
  return removed, known - removed
end

-- Names that were last used at `cutoff` or before, the oldest first.
local function oldest(cutoff, limit)
  return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', cutoff, 'LIMIT', 0, limit)
end
