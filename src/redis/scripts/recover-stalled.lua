-- Jobs whose lock has run out go back to wait, as BullMQ does it (marked at one look, moved at the next); and when to look again.
--   KEYS as BullMQ's moveStalledJobsToWait has them, then the list of active jobs
--   ARGV as BullMQ has them; the second is the key base of the queue
-- Returns {active jobs, until the first of their locks runs out in ms, or -1 when one has none}. Of many jobs the first thousand are looked at.
local bullmqRedis, bullmqCmsgpack, bullmqCjson = redis, cmsgpack, cjson
--@bullmq moveStalledJobsToWait
local MOST = 1000
local activeKey, base = KEYS[#KEYS], ARGV[2]
bullmq_moveStalledJobsToWait()(KEYS, ARGV)
local first = nil
for _, id in ipairs(redis.call('LRANGE', activeKey, 0, MOST - 1)) do
  local ttl = math.max(-1, redis.call('PTTL', base .. id .. ':lock'))
  if not first or ttl < first then first = ttl end
end
return {redis.call('LLEN', activeKey), first or -1}
