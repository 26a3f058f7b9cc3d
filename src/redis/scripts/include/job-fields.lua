-- The position in JOB_FIELDS (job-hash.ts) of the field that scripts read themselves.
local TIMESTAMP = 2
-- About what a job takes in a response beside its values.
local JOB_OVERHEAD = 500

-- A job that takes this little memory is read without measuring each field, which would take three times as long.
local SMALL_JOB = 4096
-- Of so many fields the memory is exact, and BullMQ writes fewer.
local SAMPLES = 100

-- Sums up the values that were read.
local function bytesOf(values)
  local bytes = JOB_OVERHEAD
  for i = 1, #values do
    if values[i] then bytes = bytes + #values[i] end
  end
  return bytes
end

-- As readFields for a job that is small, else nil.
local function readSmallJob(key, first, count, left)
  local memory = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', SAMPLES)
  if not memory then return false end
  if type(memory) ~= 'number' or memory > SMALL_JOB or memory + JOB_OVERHEAD > left then return nil end
  local values = redis.pcall('HMGET', key, unpack(ARGV, first, first + count - 1))
  if not values.err then return values[TIMESTAMP] and values, bytesOf(values) end
  -- An id may spell another key of the queue (`42:lock`): only a hash with a timestamp is a job.
  if string.find(values.err, 'WRONGTYPE', 1, true) then return false end
  error(values.err, 0)
end

-- Reads `count` fields of the job at `key`, measured first, so that Redis copies no more than `left` bytes. Their names are
-- the arguments from `first` on, and the longest values to read those from `limits` on. The size of a field stands for a
-- value that is longer or, with `mustRead`, does not fit. The limits are not applied to a job that is small as a whole.
-- Returns {values} and their bytes; false if there is no job; nil if the job does not fit and need not be read.
local function readFields(key, first, count, limits, left, mustRead)
  local small, smallBytes = readSmallJob(key, first, count, left)
  if small ~= nil then return small, smallBytes end
  local stored = redis.pcall('HSTRLEN', key, ARGV[first + TIMESTAMP - 1])
  if type(stored) == 'table' then
    if string.find(stored.err, 'WRONGTYPE', 1, true) then return false end
    error(stored.err, 0)
  end
  if stored == 0 and not redis.call('HMGET', key, ARGV[first + TIMESTAMP - 1])[1] then return false end
  local values, wanted, places, bytes = {}, {}, {}, JOB_OVERHEAD
  for i = 1, count do
    local name = ARGV[first + i - 1]
    local size = redis.call('HSTRLEN', key, name)
    if size > tonumber(ARGV[limits + i - 1]) or (mustRead and bytes + size > left) then
      values[i] = size
    else
      bytes = bytes + size
      wanted[#wanted + 1] = name
      places[#places + 1] = i
    end
  end
  if bytes > left and not mustRead then return nil end
  local found = redis.call('HMGET', key, unpack(wanted))
  if #wanted == count then return found, bytes end
  for i, place in ipairs(places) do
    values[place] = found[i]
  end
  return values, bytes
end
