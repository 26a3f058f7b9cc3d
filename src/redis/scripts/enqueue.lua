-- Adds a batch of jobs to one queue with BullMQ's own scripts, and says of each what became of it.
--   KEYS[1] any key of the queue, for a cluster to find it by
--   ARGV[1] key base of the queue ("bull:emails:")
--   ARGV[2] msgpack: ten values a job: script (1 standard, 2 delayed, 3 prioritized), 1 if a client chose the key (else
--           only a repeat of this very command can have made it, and it was created), key, name, timestamp, deduplication
--           id or false, data, or false when it is an argument of its own, options in msgpack, or false for those of the
--           job before, and the key and fingerprint of its idempotency record, or false twice
--   ARGV[3] how long an idempotency record is kept, ms
--   ARGV[4…] the data of the jobs that have much of it, in their order
-- Returns a value a job: 1 created · {2, key, state, name, timestamp} it was already there (name and what follows
-- missing when that job is gone by now) · {3, text} failed, and nothing of it is left · {4, key, state, name, timestamp}
-- an idempotency key led to it · {5} that idempotency key belongs to another payload.
--@include job-state

local base = ARGV[1]
local jobs = cmsgpack.unpack(ARGV[2])
local PER_JOB = 10
--@include memoized-redis
--@bullmq addStandardJob
--@bullmq-keys addStandardJob
--@bullmq addDelayedJob
--@bullmq-keys addDelayedJob
--@bullmq addPrioritizedJob
--@bullmq-keys addPrioritizedJob

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

-- `how`: 2 it was already there, 4 an idempotency key led to it.
local function existing(how, key)
  local found = redis.pcall('HMGET', base .. key, 'finishedOn', 'timestamp', 'name')
  if found.err or not found[2] then
    return {how, key}
  end
  -- What a damaged queue cannot say must not cost the rest of the batch its answers.
  local ok, state = pcall(jobState, base, key, found[1])
  return {how, key, ok and state or false, found[3], found[2]}
end

-- A record is the fingerprint of the payload and the key of the job that came of it. It is written in the same script as
-- the job, so that there is never one without the other, and outlives it.
local function replay(recordKey, fingerprint)
  local record = redis.call('GET', recordKey)
  if not record then return nil end
  if record:sub(1, #fingerprint) ~= fingerprint then return {5} end
  return existing(4, record:sub(#fingerprint + 1))
end

local function add(i, data, opts)
  local kind, key, name, timestamp, deduplicationId = jobs[i], jobs[i + 2], jobs[i + 3], jobs[i + 4], jobs[i + 5]
  local recordKey, fingerprint = jobs[i + 8], jobs[i + 9]
  if recordKey then
    local replayed = replay(recordKey, fingerprint)
    if replayed then return replayed end
  end
  local deduplicationKey = deduplicationId and base .. 'de:' .. deduplicationId or nil
  if not adders[kind] then make(kind) end
  local existed = jobs[i + 1] == 1 and redis.call('EXISTS', base .. key) == 1
  -- As BullMQ's add scripts say: what belongs to parents and repeats (5 to 8, 10) is nothing here.
  local args = {base, key, name, timestamp, nil, nil, nil, nil, deduplicationKey}
  local ok, added = pcall(adders[kind], adderKeys[kind], {args, data, opts})
  if not ok then
    -- Redis 7 throws a table, Redis 6 a string.
    local text = type(added) == 'table' and added.err or tostring(added)
    if not existed then undo(key, deduplicationKey) end
    return {3, text}
  end
  if type(added) == 'number' then return {3, 'BullMQ refused the job with code ' .. added} end
  if recordKey then redis.call('SET', recordKey, fingerprint .. added, 'PX', ARGV[3]) end
  if existed or added ~= key then return existing(2, added) end
  return 1
end

local results = {}
local lastLarge = 3
local opts
for i = 1, #jobs, PER_JOB do
  local data = jobs[i + 6]
  if not data then
    lastLarge = lastLarge + 1
    data = ARGV[lastLarge]
  end
  if jobs[i + 7] then opts = cmsgpack.unpack(jobs[i + 7]) end
  local result = add(i, data, opts)
  -- A replica takes no write of any job. The client library has to hear that itself, to look for the master.
  local readonly = type(result) == 'table' and result[1] == 3 and result[2]:match('READONLY .*')
  if readonly then return redis.error_reply(readonly) end
  results[#results + 1] = result
end
return results
