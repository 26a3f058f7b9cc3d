-- Any number of BullMQ's own commands of a worker, for one queue, as one command: each as BullMQ would have sent it.
--   KEYS[1] any key of the queue, for a cluster to find it by
--   ARGV[1] msgpack, for each command: which script (its place below), how many keys it takes, how often it is run, 1 if
--           it belongs to the last one that does not, and is run only if that gave 1, how many keys and arguments follow, and these. One that is run
--           many times ends with the first answer that brings no job ({0 or false, …}, as moveToActive says it).
-- Returns for each command a list of what each run of it gave: {1, reply} or {0, text of the error}; none if it was not run.
local bullmqRedis, bullmqCmsgpack, bullmqCjson = redis, cmsgpack, cjson
--@bullmq moveToActive
--@bullmq moveToFinished
--@bullmq moveToDelayed
--@bullmq retryJob
--@bullmq moveJobFromActiveToWait
--@bullmq extendLock
--@bullmq updateProgress
--@bullmq addLog
--@bullmq updateJobScheduler
--@bullmq moveStalledJobsToWait
local makers = {
  bullmq_moveToActive, bullmq_moveToFinished, bullmq_moveToDelayed, bullmq_retryJob, bullmq_moveJobFromActiveToWait,
  bullmq_extendLock, bullmq_updateProgress, bullmq_addLog, bullmq_updateJobScheduler, bullmq_moveStalledJobsToWait
}
-- Made when the first command needs it.
local scripts = {}

local function isReadonly(reply)
  return reply[1] == 0 and string.match(reply[2], 'READONLY .*')
end

local function run(script, keys, args)
  local ok, reply = pcall(script, keys, args)
  if ok then return {1, reply} end
  -- Redis 7 throws a table, Redis 6 a string.
  return {0, type(reply) == 'table' and reply.err or tostring(reply)}
end

local list = cmsgpack.unpack(ARGV[1])
local replies = {}
local at = 1
local isLeaderDone = false
while at <= #list do
  local which, keyCount, times, follows, count = unpack(list, at, at + 4)
  local keys, args = {}, {}
  for i = 1, count do
    if i <= keyCount then keys[i] = list[at + 4 + i] else args[i - keyCount] = list[at + 4 + i] end
  end
  at = at + 5 + count
  if follows == 1 and not isLeaderDone then times = 0 end
  if not scripts[which] then scripts[which] = makers[which]() end
  local runs = {}
  for i = 1, times do
    local reply = run(scripts[which], keys, args)
    -- A replica takes no write. The client library has to hear that itself, to look for the master.
    local readonly = isReadonly(reply)
    if readonly then return redis.error_reply(readonly) end
    runs[i] = reply
    if reply[1] == 0 or type(reply[2]) ~= 'table' or not reply[2][1] or reply[2][1] == 0 then break end
  end
  if follows == 0 then isLeaderDone = runs[1][2] == 1 end
  replies[#replies + 1] = runs
end
return replies
