-- Runs any number of BullMQ's worker commands for one queue as one Redis command, each as BullMQ would have sent it.
--   KEYS[1] any key of the queue, which routes the command in a cluster
--   ARGV[1] msgpack array with, for each command: the number of its script (from 1, in the order of the includes below),
--           how many keys the script takes, how often to run it, 1 if it follows the previous leader (the last command
--           with 0 here) and runs only if the leader returned 1, the number of values that come next, and those values:
--           the keys, then the arguments. Only a take (moveToActive) runs more than once. It ends early with the first run
--           that returns no job, and before a job with which the jobs of the take would exceed ARGV[2].
--   ARGV[2] most bytes that the jobs of a take have together, ids included; its first job may be larger
-- Only for a worker that has a concurrency limit across processes:
--   KEYS[2] sorted set of the jobs that it leases, scored by when the lease ends   KEYS[3] hash that owns the limit
--   ARGV[3] msgpack array: the current time, when a lease taken now ends (both ms since 1970), the limit, the revision that
--           the hash must have for a take to run, then the keys of the jobs that the worker no longer leases
--   ARGV[3] is empty without a limit.   ARGV[4..] ids of the jobs that a take passes over
-- Returns for each command a list with one entry per run: {1, reply} or {0, text of the error}. The list is empty if the
-- command did not run. A take that returned no job has a third value: 1 if the queue limits how many jobs are active. A take
-- that met a job whose key is not a hash has taken the job out of the queue, which is all that can be done with it, and
-- returns {2, id}. A take whose KEYS[2] is not a sorted set takes nothing and returns {0, 'LIMIT_DAMAGED <KEYS[2]>'}; jobs are
-- settled all the same, since their worker would otherwise get them again.
--@include include/tolerant-redis
--@include include/skipped-jobs
--@bullmq moveToActive
--@bullmq moveToFinished
--@bullmq moveToDelayed
--@bullmq retryJob
--@bullmq moveJobFromActiveToWait
--@bullmq extendLock
--@bullmq updateProgress
--@bullmq addLog
--@bullmq-list
-- The functions of bullmqScripts, each created when the first command needs it.
local functions = {}
local TAKE_BYTES_MAX = tonumber(ARGV[2])
-- Most jobs that one take takes out of the queue without leasing them.
local REMOVED_MAX = 100
-- No worker with a concurrency limit leases a job for this long. A later end was written by something else, or before a clock
-- was set back.
local LIMITED_LEASE_MAX_MS = 600000
local NOT_A_HASH = 'Malformed job: its key in Redis is not a hash'

local limit
if KEYS[2] then
  local check = cmsgpack.unpack(ARGV[3])
  limit = {key = KEYS[2], untilMs = check[2]}
  local expired = redis.pcall('ZREMRANGEBYSCORE', limit.key, '-inf', '(' .. check[1])
  if type(expired) == 'table' then
    if not string.find(expired.err, 'WRONGTYPE', 1, true) then return expired end
    limit.isDamaged = true
  else
    for i = 5, #check do redis.call('ZREM', limit.key, check[i]) end
    local max = tonumber(check[3])
    limit.capacity = max - redis.call('ZCARD', limit.key)
    if limit.capacity <= 0 then
      redis.call('ZREMRANGEBYSCORE', limit.key, string.format('%.0f', check[1] + LIMITED_LEASE_MAX_MS), '+inf')
      limit.capacity = max - redis.call('ZCARD', limit.key)
    end
  end
  -- Also true for a key of another type, whose error differs from any revision.
  limit.isRevised = redis.pcall('HGET', KEYS[3], 'revision') ~= check[4]
end

local function run(fn, keys, args, settles)
  tolerance.refusesOwn = settles
  local ok, reply = pcall(fn, keys, args)
  tolerance.refusesOwn = false
  if ok then return {1, reply} end
  -- Redis 7 throws a table, Redis 6 a string.
  return {0, type(reply) == 'table' and reply.err or tostring(reply)}
end

local function readonlyError(reply)
  return reply[1] == 0 and string.match(reply[2], 'READONLY .*')
end

-- The size of the job that a take returned; nil if it returned none.
local function bytesOf(reply)
  local fields = reply[1] == 1 and type(reply[2]) == 'table' and reply[2][1]
  if type(fields) ~= 'table' then return nil end
  local bytes = 0
  for _, field in ipairs(fields) do bytes = bytes + #field end
  return bytes
end

-- An answer has the id of a job, and a lease that contains it, escaped and in base64.
local BYTES_PER_ID_BYTE = 8

-- The size of the data of the job that the next run takes, in the order of moveToActive. Fails if its key is not a hash.
local function nextBytes(keys, base)
  local id = firstInList(keys[1]) or firstInSet(keys[3]) or redis.call('ZRANGE', keys[7], 0, 0)[1]
  if not id then return 0 end
  return redis.call('HSTRLEN', base .. id, 'data') + #id * BYTES_PER_ID_BYTE
end

-- The job is active and locked, but has no fields to work it with. In the set of failed jobs it would make BullMQ's retention
-- fail for the others.
local function remove(keys, base, id)
  redis.call('LREM', keys[2], 1, id)
  redis.call('DEL', base .. id .. ':lock')
  redis.call('XADD', keys[4], '*', 'event', 'failed', 'jobId', id, 'failedReason', NOT_A_HASH, 'prev', 'active')
end

-- When the next delayed job is due, ms since 1970; 0 if there is none.
local function nextDueMs(delayedKey)
  local due = redis.call('ZRANGEBYSCORE', delayedKey, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return due[2] and tonumber(due[2]) / 0x1000 or 0
end

-- args[1] is the base of the queue's keys.
local function take(fn, keys, args, times)
  if limit then
    if limit.isRevised then return {{0, 'LIMIT_REVISED'}} end
    if limit.isDamaged then return {{0, 'LIMIT_DAMAGED ' .. limit.key}} end
    times = math.min(times, limit.capacity)
  end
  local runs, bytes, taken, removed = {}, 0, 0, 0
  while taken < times and removed < REMOVED_MAX do
    if taken > 0 then
      local ok, next = pcall(nextBytes, keys, args[1])
      if ok and bytes + next > TAKE_BYTES_MAX then break end
    end
    local reply = run(fn, keys, args, false)
    runs[#runs + 1] = reply
    local size = bytesOf(reply)
    if not size then
      if reply[1] == 1 then
        reply[3] = redis.call('HEXISTS', args[1] .. 'meta', 'concurrency')
        -- BullMQ promotes due jobs whether or not a job may be taken, but says when to do so only if one may.
        reply[2][4] = nextDueMs(keys[7])
      end
      break
    end
    local id = reply[2][2]
    if size == 0 then
      removed = removed + 1
      remove(keys, args[1], id)
      runs[#runs] = {2, id}
    else
      taken, bytes = taken + 1, bytes + size + #id * BYTES_PER_ID_BYTE
      if limit then redis.call('ZADD', limit.key, limit.untilMs, id) end
    end
  end
  return runs
end

local list = cmsgpack.unpack(ARGV[1])
local replies = {}
local at = 1
local hasLeaderSucceeded = false
while at <= #list do
  local script, keyCount, times, follows, count = unpack(list, at, at + 4)
  local keys, args = {}, {}
  for i = 1, count do
    if i <= keyCount then keys[i] = list[at + 4 + i] else args[i - keyCount] = list[at + 4 + i] end
  end
  at = at + 5 + count
  if not functions[script] then functions[script] = bullmqScripts[script]() end
  local runs = {}
  if bullmqScripts[script] == bullmq_moveToActive then
    runs = take(functions[script], keys, args, times)
  elseif follows == 0 or hasLeaderSucceeded then
    runs = {run(functions[script], keys, args, true)}
  end
  if follows == 0 then hasLeaderSucceeded = runs[1] ~= nil and runs[1][2] == 1 end
  -- A replica of Redis refuses writes. The client library must see that error itself to look for the master.
  local readonly = runs[1] and readonlyError(runs[1])
  if readonly then return redis.error_reply(readonly) end
  replies[#replies + 1] = runs
end
return replies
