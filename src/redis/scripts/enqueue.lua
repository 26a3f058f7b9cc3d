-- Adds a batch of jobs to one queue with BullMQ's own scripts, and returns the result of each job. enqueue.ts alone calls
-- it. The constants are those of enqueue-layout.ts: the offsets of a job's values (JOB_KEY, …) and their number
-- (VALUES_PER_JOB), the codes of the results (CREATED, …) and the numbers of BullMQ's scripts (addStandardJob, …).
--   KEYS[1] any key of the queue, which routes the command in a cluster
--   ARGV[1] what every key of the queue starts with ("bull:emails:")
--   ARGV[2] one msgpack array with VALUES_PER_JOB values per job. A missing value is false; missing data are the next of
--           ARGV[4…], missing options are those of the job before
--   ARGV[3] lifetime of an idempotency record, ms
--   ARGV[4…] large data, in the order of their jobs
-- Returns one value per job:
--   CREATED
--   {DUPLICATE, key, state, name, timestamp}  a job with this key or deduplication id exists
--   {REPLAYED, key, state, name, timestamp}   the idempotency record names this job
--   {KEY_REUSED}                              the idempotency record has another fingerprint
--   {FAILED, text}                            Redis' error; everything written for this job was removed
-- A DUPLICATE or REPLAYED job that no longer exists has its key only.
--@constants
--@include include/job-state

local base, recordTtlMs = ARGV[1], ARGV[3]
local jobs = cmsgpack.unpack(ARGV[2])
local nextLarge = 4
--@include include/memoized-redis
--@bullmq addStandardJob
--@bullmq-keys addStandardJob
--@bullmq addDelayedJob
--@bullmq-keys addDelayedJob
--@bullmq addPrioritizedJob
--@bullmq-keys addPrioritizedJob

local adderFactories = {
  [addStandardJob] = bullmq_addStandardJob,
  [addDelayedJob] = bullmq_addDelayedJob,
  [addPrioritizedJob] = bullmq_addPrioritizedJob,
}
local keyNames = {
  [addStandardJob] = bullmq_addStandardJobKeys,
  [addDelayedJob] = bullmq_addDelayedJobKeys,
  [addPrioritizedJob] = bullmq_addPrioritizedJobKeys,
}
local adders = {}
local adderKeys = {}

-- Deferred until the first job that needs the script: most batches need only one of the three.
local function prepareAdder(script)
  local keys = {}
  for i, name in ipairs(keyNames[script]) do
    keys[i] = base .. name
  end
  adderKeys[script] = keys
  adders[script] = adderFactories[script]()
end

-- Redis does not roll back a script that fails. BullMQ writes the deduplication key first, then the hash, then adds the
-- key to either end of the list or to the sorted set.
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

-- `code`: DUPLICATE or REPLAYED.
local function existing(code, key)
  local found = redis.pcall('HMGET', base .. key, 'timestamp', 'name')
  if found.err or not found[1] then
    return {code, key}
  end
  -- In a damaged queue jobState can throw, which must not fail the other jobs of the batch.
  local ok, state = pcall(jobState, base, key)
  return {code, key, ok and state or false, found[2], found[1]}
end

-- An idempotency record has two keys, which the script writes together with the job, so no job is stored without them. They
-- outlive the job. The first is as versions up to 0.1 write and read it, so that both may run together: the fingerprint of the
-- payload with its numbers rounded, followed by the key of the job. The second has the exact fingerprint. A record without
-- it is of such a version and identifies its payload only by the rounded one.
local EXACT = ':exact'
local function replay(recordKey, fingerprint, rounded)
  local record = redis.call('GET', recordKey)
  if not record then return nil end
  local exact = redis.call('GET', recordKey .. EXACT)
  local isSame
  if exact then isSame = exact == fingerprint else isSame = record:sub(1, #rounded) == rounded end
  if not isSame then return {KEY_REUSED} end
  return existing(REPLAYED, record:sub(#rounded + 1))
end

local function remember(recordKey, fingerprint, rounded, key)
  redis.call('SET', recordKey, rounded .. key, 'PX', recordTtlMs)
  redis.call('SET', recordKey .. EXACT, fingerprint, 'PX', recordTtlMs)
end

-- `at`: where the values of the job start in `jobs`.
local function add(at, data, opts)
  local script, key = jobs[at + JOB_SCRIPT], jobs[at + JOB_KEY]
  local deduplicationId = jobs[at + JOB_DEDUPLICATION_ID]
  local recordKey = jobs[at + JOB_RECORD_KEY]
  local fingerprint, rounded = jobs[at + JOB_FINGERPRINT], jobs[at + JOB_ROUNDED_FINGERPRINT]
  if recordKey then
    local replayed = replay(recordKey, fingerprint, rounded)
    if replayed then return replayed end
  end
  local deduplicationKey = deduplicationId and base .. 'de:' .. deduplicationId or nil
  if not adders[script] then prepareAdder(script) end
  -- A generated key can exist only because this very command ran before, and then it created the job.
  local existed = jobs[at + JOB_IS_KEY_CHOSEN] == 1 and redis.call('EXISTS', base .. key) == 1
  -- The arguments of BullMQ's add scripts. 5 to 8 and 10 are about parents and repeats, which these jobs do not have.
  local args = {base, key, jobs[at + JOB_NAME], jobs[at + JOB_TIMESTAMP], nil, nil, nil, nil, deduplicationKey}
  local ok, added = pcall(adders[script], adderKeys[script], {args, data, opts})
  if not ok then
    -- Redis 7 throws a table, Redis 6 a string.
    local text = type(added) == 'table' and added.err or tostring(added)
    if not existed then undo(key, deduplicationKey) end
    return {FAILED, text}
  end
  if type(added) == 'number' then return {FAILED, 'BullMQ refused the job with code ' .. added} end
  if recordKey then remember(recordKey, fingerprint, rounded, added) end
  if existed or added ~= key then return existing(DUPLICATE, added) end
  return CREATED
end

local results = {}
local opts
for at = 1, #jobs, VALUES_PER_JOB do
  local data = jobs[at + JOB_DATA]
  if not data then
    data = ARGV[nextLarge]
    nextLarge = nextLarge + 1
  end
  if jobs[at + JOB_OPTIONS] then opts = cmsgpack.unpack(jobs[at + JOB_OPTIONS]) end
  local result = add(at, data, opts)
  -- A replica refuses every job. The client library looks for the master only when the whole command fails with READONLY.
  local readonly = type(result) == 'table' and result[1] == FAILED and result[2]:match('READONLY .*')
  if readonly then return redis.error_reply(readonly) end
  results[#results + 1] = result
end
return results
