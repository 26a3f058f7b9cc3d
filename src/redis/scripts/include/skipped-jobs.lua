-- A take passes over the jobs whose ids are the arguments from the fourth on: they stay where they are, and the next one in
-- BullMQ's order is taken. Expects `bullmqRedis` of tolerant-redis.lua.
local skipped, skippedCount = {}, math.max(0, #ARGV - 3)
for i = 4, #ARGV do skipped[ARGV[i]] = true end

-- The first job of a list that is not skipped, and its index.
local function firstInList(key)
  for at = -1, -skippedCount - 1, -1 do
    local id = redis.call('LINDEX', key, at)
    if not id then return nil end
    if not skipped[id] then return id, at end
  end
end

-- The first job of a sorted set that is not skipped.
local function firstInSet(key)
  for _, id in ipairs(redis.call('ZRANGE', key, 0, skippedCount)) do
    if not skipped[id] then return id end
  end
end

if skippedCount > 0 then
  local call = bullmqRedis.call
  local hasOnlySkipped = false
  bullmqRedis.call = function(command, key, ...)
    if command == 'RPOPLPUSH' then
      local id, at = firstInList(key)
      if not id then return false end
      if at == -1 then return call(command, key, ...) end
      redis.call('LREM', key, -1, id)
      redis.call('LPUSH', (...), id)
      return id
    elseif command == 'ZPOPMIN' then
      local id = firstInSet(key)
      hasOnlySkipped = not id and redis.call('EXISTS', key) == 1
      if not id then return {} end
      local score = redis.call('ZSCORE', key, id)
      redis.call('ZREM', key, id)
      return {id, score}
    elseif command == 'DEL' and hasOnlySkipped then
      -- BullMQ starts the counter of prioritized jobs again once there are none.
      hasOnlySkipped = false
      return 0
    end
    return call(command, key, ...)
  end
end
