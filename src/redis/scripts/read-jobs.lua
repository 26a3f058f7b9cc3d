-- Reads jobs of one queue and the position of the queue's event stream as of one instant: the reply reflects every
-- event up to that position and no later one. The cost does not grow with the backlog, nor the reply beyond its limit.
--   KEYS[1] the queue's event stream
--   ARGV[1] key base of the queue ("bull:emails:")   ARGV[2] most bytes of the reply
--   ARGV[3] 1: the first job is read even if it does not fit, without the fields that do not
--   ARGV[4] number of fields   ARGV[5…] the fields: those of job-fields.lua first, data last
--   ARGV[…] the longest value of each, then the longest value of each in a brief job
--   ARGV[…] for each job a flag and its key; the flag is 1 with data + 2 with logs + 4 brief
-- Returns {position, {for each job
--   false                              it does not exist
--   0                                  it did not fit, or follows one that did not: read it with another command
--   {state, {field values}, score in the delayed set or false, logs, 1 if logs were left out}}}.
-- The size of a field stands for the value of one that was left out. `logs` are lines, newest first; -1: not a list.
--@include include/job-fields
--@include include/job-state
--@include include/stream-position
local UNREAD = 0
-- A line counts with its quotes and comma.
local LINE_OVERHEAD = 3
local LINES_MAX = 1000
-- Nothing measures a line but reading it, so lines are read a few at a time: at most this many of the largest seen.
local SLICE_FIRST, SLICE_MAX = 4, 256

local base, left, fieldCount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])

local FIELDS = 5
local LIMITS = FIELDS + fieldCount
local BRIEF_LIMITS = LIMITS + fieldCount
local FIRST_JOB = BRIEF_LIMITS + fieldCount

-- Returns the newest lines that fit, their bytes, and 1 if older ones of the newest thousand do not.
local function readLogs(key, room)
  local length = redis.pcall('LLEN', key)
  if type(length) ~= 'number' then return -1, 0, 0 end
  local lines, bytes, largest, slice = {}, 0, 1, SLICE_FIRST
  local last, first = length - 1, math.max(0, length - LINES_MAX)
  while last >= first do
    local from = math.max(first, last - slice + 1)
    local found = redis.call('LRANGE', key, from, last)
    for i = #found, 1, -1 do
      bytes = bytes + #found[i] + LINE_OVERHEAD
      if bytes > room then return lines, bytes - #found[i] - LINE_OVERHEAD, 1 end
      lines[#lines + 1] = found[i]
      largest = math.max(largest, #found[i])
    end
    last = from - 1
    slice = math.max(1, math.min(2 * slice, SLICE_MAX, math.floor((room - bytes) / largest)))
  end
  return lines, bytes, 0
end

local function readJob(flag, id, mustRead)
  local count = flag % 2 == 1 and fieldCount or fieldCount - 1
  local limits = flag >= 4 and BRIEF_LIMITS or LIMITS
  local values, bytes = readFields(base .. id, FIELDS, count, limits, left, mustRead)
  if values == nil then return UNREAD end
  if not values then return false end
  local logs, logBytes, isCut
  if flag % 4 >= 2 then
    logs, logBytes, isCut = readLogs(base .. id .. ':logs', left - bytes)
    if isCut == 1 and not mustRead then return UNREAD end
    bytes = bytes + logBytes
  end
  left = left - bytes
  local state, score = jobState(base, id)
  return {state, values, score or false, logs, isCut}
end

local jobs = {}
local isFull = false
for i = FIRST_JOB, #ARGV do
  local flag, id = tonumber(string.sub(ARGV[i], 1, 1)), string.sub(ARGV[i], 2)
  local job = isFull and UNREAD or readJob(flag, id, i == FIRST_JOB and ARGV[3] == '1')
  isFull = job == UNREAD
  jobs[#jobs + 1] = job
end
return {streamPosition(KEYS[1]), jobs}
