-- Positions of the fields that scripts read themselves; JOB_FIELDS in job-hash.ts starts with them, in this order.
local FINISHED_ON, TIMESTAMP = 1, 2
-- About what a job takes in a response beside its values.
local JOB_OVERHEAD = 500

-- Reads the fields `names` of the job at `key`, measured first by HSTRLEN, so that Redis copies no more than `left` bytes.
-- The size of a field stands for its value if it is longer than its limit or, with `mustRead`, if it does not fit.
-- Returns {values} and their bytes; false if there is no job; nil if the job does not fit and need not be read.
local function readFields(key, names, limits, left, mustRead)
  local stored = redis.pcall('HSTRLEN', key, names[TIMESTAMP])
  if type(stored) == 'table' then
    -- An id may spell another key of the queue (`42:lock`): only a hash with a timestamp is a job.
    if string.find(stored.err, 'WRONGTYPE', 1, true) then return false end
    error(stored.err, 0)
  end
  if stored == 0 and not redis.call('HMGET', key, names[TIMESTAMP])[1] then return false end
  local values, wanted, places, bytes = {}, {}, {}, JOB_OVERHEAD
  for i, name in ipairs(names) do
    local size = redis.call('HSTRLEN', key, name)
    if size > limits[i] or (mustRead and bytes + size > left) then
      values[i] = size
    else
      bytes = bytes + size
      wanted[#wanted + 1] = name
      places[#places + 1] = i
    end
  end
  if bytes > left and not mustRead then return nil end
  local found = redis.call('HMGET', key, unpack(wanted))
  if #wanted == #names then return found, bytes end
  for i, place in ipairs(places) do
    values[place] = found[i]
  end
  return values, bytes
end
