-- Moves jobs whose lock has expired back to wait, with BullMQ's own script (which marks a job in one run and moves it in the
-- next), and reports when to run again.
--   KEYS and ARGV as BullMQ's moveStalledJobsToWait takes them; ARGV[2] is the base of the queue's keys
-- Returns {number of active jobs, ms until the first of their locks expires, or -1 if one has no lock}. Only the first thousand
-- active jobs are checked for the latter.
--@include include/tolerant-redis
--@bullmq moveStalledJobsToWait
local JOBS_MAX = 1000
local base = ARGV[2]
local activeKey = base .. 'active'
-- Without active jobs there is nothing to do, and BullMQ would create the `meta` of a queue that does not exist.
if redis.call('EXISTS', activeKey) == 0 then return {0, -1} end
-- The key that a check sets for ARGV[4] ms makes others skip theirs. One that lasts longer was written by something else, or
-- before a clock was set back, and would end the checks of this queue.
local checkMs = redis.call('PTTL', KEYS[4])
if checkMs == -1 or checkMs > tonumber(ARGV[4]) then redis.call('DEL', KEYS[4]) end
bullmq_moveStalledJobsToWait()(KEYS, ARGV)
local first = nil
for _, id in ipairs(redis.call('LRANGE', activeKey, 0, JOBS_MAX - 1)) do
  local ttl = math.max(-1, redis.call('PTTL', base .. id .. ':lock'))
  if not first or ttl < first then first = ttl end
end
return {redis.call('LLEN', activeKey), first or -1}
