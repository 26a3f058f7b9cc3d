-- Adds a batch of jobs to one queue with BullMQ's own scripts, and says of each what became of it.
--   KEYS[1] any key of the queue, for a cluster to find it by
--   ARGV[1] key base of the queue ("bull:emails:")
--   ARGV[2] msgpack: eight values a job: script (1 standard, 2 delayed, 3 prioritized), 1 if a client chose the key (else
--           only a repeat of this very command can have made it, and it was created), key, name, timestamp, deduplication
--           id or false, data, and options in msgpack, or false for those of the job before
-- Returns a value a job: 1 created · {2, key, state, name, timestamp} it was already there (name and what follows
-- missing when that job is gone by now) · {3, text} failed, and nothing of it is left.
--@include job-state

local base = ARGV[1]
local jobs = cmsgpack.unpack(ARGV[2])
local PER_JOB = 8
--@include once-a-batch
--@bullmq addStandardJob
--@bullmq addDelayedJob
--@bullmq addPrioritizedJob

local makers = {bullmq_addStandardJob, bullmq_addDelayedJob, bullmq_addPrioritizedJob}
local keyNames = {bullmq_addStandardJobKeys, bullmq_addDelayedJobKeys, bullmq_addPrioritizedJobKeys}
local adders = {}
local adderKeys = {}

-- Made when the first job needs it: most batches need one of the three.
local function make(kind)
  local keys = {}
  for i, name in ipairs(keyNames[kind]) do
    keys[i] = base .. name
  end
  adderKeys[kind] = keys
  adders[kind] = makers[kind]()
end

-- A script that dies midway leaves what it had written. BullMQ sets the deduplication key first, then the hash, then
-- puts the key at an end of its list or into its set.
local function undo(key, deduplicationKey)
  if deduplicationKey and redis.pcall('GET', deduplicationKey) == key then
    redis.pcall('DEL', deduplicationKey)
  end
  redis.pcall('DEL', base .. key)
  if redis.pcall('LINDEX', base .. 'wait', 0) == key then redis.pcall('LPOP', base .. 'wait') end
  if redis.pcall('LINDEX', base .. 'wait', -1) == key then redis.pcall('RPOP', base .. 'wait') end
  redis.pcall('ZREM', base .. 'delayed', key)
  redis.pcall('ZREM', base .. 'prioritized', key)
end

local function existing(key)
  local found = redis.pcall('HMGET', base .. key, 'finishedOn', 'timestamp', 'name')
  if found.err or not found[2] then
    return {2, key}
  end
  -- What a damaged queue cannot say must not cost the rest of the batch its answers.
  local ok, state = pcall(jobState, base, key, found[1])
  return {2, key, ok and state or false, found[3], found[2]}
end

local results = {}
local opts
for i = 1, #jobs, PER_JOB do
  local kind, key, name, timestamp, deduplicationId = jobs[i], jobs[i + 2], jobs[i + 3], jobs[i + 4], jobs[i + 5]
  local deduplicationKey = deduplicationId and base .. 'de:' .. deduplicationId or nil
  if jobs[i + 7] then opts = cmsgpack.unpack(jobs[i + 7]) end
  if not adders[kind] then make(kind) end
  local existed = jobs[i + 1] == 1 and redis.call('EXISTS', base .. key) == 1
  -- As BullMQ's add scripts say: what belongs to parents and repeats (5 to 8, 10) is nothing here.
  local args = {base, key, name, timestamp, nil, nil, nil, nil, deduplicationKey}
  local ok, added = pcall(adders[kind], adderKeys[kind], {args, jobs[i + 6], opts})
  if not ok then
    -- Redis 7 throws a table, Redis 6 a string.
    local text = type(added) == 'table' and added.err or tostring(added)
    -- A replica takes no write of any job. The client library has to hear that itself, to look for the master.
    local readonly = text:match('READONLY .*')
    if readonly then return redis.error_reply(readonly) end
    if not existed then undo(key, deduplicationKey) end
    results[#results + 1] = {3, text}
  elseif type(added) == 'number' then
    results[#results + 1] = {3, 'BullMQ refused the job with code ' .. added}
  elseif existed or added ~= key then
    results[#results + 1] = existing(added)
  else
    results[#results + 1] = 1
  end
end
return results
