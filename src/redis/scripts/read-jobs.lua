-- Reads jobs of one queue and the position of the queue's event stream as of one instant: the reply reflects every
-- event up to that position and no later one. The cost does not grow with the backlog.
--   KEYS[1] the queue's event stream
--   ARGV[1] key base of the queue ("bull:emails:")   ARGV[2] number of fields
--   ARGV[3…] the fields: those of job-fields.lua first, data last
--   ARGV[…] for each job a flag and its key: 0 plain, 1 with data, 2 with logs, 3 with both
-- Returns {position, {for each job false or {state, {field values}, score in the delayed set or false, {logs}}}}.
--@include job-fields
--@include job-state
--@include stream-position
local base = ARGV[1]
local lastField = 2 + ARGV[2]

local function readJob(flag, id)
  local withData = flag == '1' or flag == '3'
  local fields = redis.pcall('HMGET', base .. id, unpack(ARGV, 3, withData and lastField or lastField - 1))
  -- An id may spell another key of the queue (`42:lock`): only a hash with a timestamp is a job.
  if fields.err and not string.find(fields.err, 'WRONGTYPE', 1, true) then error(fields.err, 0) end
  if fields.err or not fields[TIMESTAMP] then return false end
  local state, score = jobState(base, id, fields[FINISHED_ON])
  if flag == '0' or flag == '1' then return {state, fields, score or false} end
  -- The newest thousand lines: a job with an endless log must not block Redis.
  return {state, fields, score or false, redis.call('LRANGE', base .. id .. ':logs', -1000, -1)}
end

local jobs = {}
for i = lastField + 1, #ARGV do
  jobs[#jobs + 1] = readJob(string.sub(ARGV[i], 1, 1), string.sub(ARGV[i], 2))
end
return {streamPosition(KEYS[1]), jobs}
