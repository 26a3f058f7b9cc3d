-- Any number of BullMQ's own commands of a worker, for one queue, as one command: each as BullMQ would have sent it.
--   KEYS[1] any key of the queue, for a cluster to find it by
--   ARGV[1] msgpack, for each command: which script (its place below), how many keys it takes, how often it is run, 1 if
--           it belongs to the last one that does not, and is run only if that gave 1, how many keys and arguments follow,
--           and these. One that is run many times ends with the first answer that brings no job ({0 or false, …}, as
--           moveToActive says it), and when the jobs together are large.
-- Only for a consumer whose processes share a bound:
--   KEYS[2] sorted set: the jobs that it holds, and until when   KEYS[3] hash that says how it is meant to be
--   ARGV[2] msgpack: now, until when a job taken now is held (both ms since 1970), the bound, the revision that the hash
--           must have, or nothing is taken; then the jobs that it holds no more
-- Returns for each command a list of what each run of it gave: {1, reply} or {0, text of the error}; none if it was not run.
-- A take that brought nothing has a third value: 1 when the queue has a bound on what is active at once.
local bullmqRedis, bullmqCmsgpack, bullmqCjson = redis, cmsgpack, cjson
--@bullmq moveToActive
--@bullmq moveToFinished
--@bullmq moveToDelayed
--@bullmq retryJob
--@bullmq moveJobFromActiveToWait
--@bullmq extendLock
--@bullmq updateProgress
--@bullmq addLog
local TAKE = 1
-- The place of the queue's meta key among those of moveToActive.
local META = 9
local makers = {
  bullmq_moveToActive, bullmq_moveToFinished, bullmq_moveToDelayed, bullmq_retryJob, bullmq_moveJobFromActiveToWait,
  bullmq_extendLock, bullmq_updateProgress, bullmq_addLog
}
-- Made when the first command needs it.
local scripts = {}
-- A take that has brought this much brings no more.
local ENOUGH_BYTES = 4194304

local share
if KEYS[2] then
  local told = cmsgpack.unpack(ARGV[2])
  share = {key = KEYS[2], untilMs = told[2]}
  for i = 5, #told do redis.call('ZREM', share.key, told[i]) end
  redis.call('ZREMRANGEBYSCORE', share.key, '-inf', '(' .. told[1])
  share.room = tonumber(told[3]) - redis.call('ZCARD', share.key)
  share.isChanged = redis.call('HGET', KEYS[3], 'revision') ~= told[4]
end

local function run(script, keys, args)
  local ok, reply = pcall(script, keys, args)
  if ok then return {1, reply} end
  -- Redis 7 throws a table, Redis 6 a string.
  return {0, type(reply) == 'table' and reply.err or tostring(reply)}
end

local function isReadonly(reply)
  return reply[1] == 0 and string.match(reply[2], 'READONLY .*')
end

-- How large the job is that a take has brought; nil when it brought none.
local function bytesOf(reply)
  local fields = reply[1] == 1 and type(reply[2]) == 'table' and reply[2][1]
  if type(fields) ~= 'table' then return nil end
  local bytes = 0
  for _, field in ipairs(fields) do bytes = bytes + #field end
  return bytes
end

local function take(script, keys, args, times)
  if share then
    if share.isChanged then return {{0, 'SHARE_CHANGED'}} end
    times = math.min(times, share.room)
  end
  local runs, bytes = {}, 0
  while #runs < times and bytes < ENOUGH_BYTES do
    local reply = run(script, keys, args)
    runs[#runs + 1] = reply
    local more = bytesOf(reply)
    if not more then
      if reply[1] == 1 then reply[3] = redis.call('HEXISTS', keys[META], 'concurrency') end
      break
    end
    bytes = bytes + more
    if share then redis.call('ZADD', share.key, share.untilMs, reply[2][2]) end
  end
  return runs
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
  if not scripts[which] then scripts[which] = makers[which]() end
  local runs = {}
  if which == TAKE then
    runs = take(scripts[which], keys, args, times)
  elseif follows == 0 or isLeaderDone then
    runs = {run(scripts[which], keys, args)}
  end
  if follows == 0 then isLeaderDone = runs[1] ~= nil and runs[1][2] == 1 end
  -- A replica takes no write. The client library has to hear that itself, to look for the master.
  local readonly = runs[1] and isReadonly(runs[1])
  if readonly then return redis.error_reply(readonly) end
  replies[#replies + 1] = runs
end
return replies
