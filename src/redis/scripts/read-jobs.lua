-- Jobs of one queue and their states, and where the queue's event stream stood, all as of one instant: whatever an
-- event up to that place tells is in the answer, whatever a later one tells is not. The cost does not grow with the
-- backlog.
--   KEYS[1] the queue's event stream
--   ARGV[1] key base of the queue ("bull:emails:")   ARGV[2] how many fields
--   ARGV[3…] the fields wanted: the first finishedOn, the second timestamp, the last data
--   ARGV[…] a flag and a job's key each: 0 plain, 1 with data, 2 with logs, 3 with both
-- Returns {place in the stream, {for each job false or {state, {field values}, score in the delayed set or false, {logs}}}}.
--@include job-state
--@include stream-position
local base = ARGV[1]
local lastField = 2 + ARGV[2]

local function view(flag, id)
  local withData = flag == '1' or flag == '3'
  local fields = redis.pcall('HMGET', base .. id, unpack(ARGV, 3, withData and lastField or lastField - 1))
  -- An id may spell another key of the queue (`42:lock`): what is no hash with a timestamp is no job.
  if fields.err and not string.find(fields.err, 'WRONGTYPE', 1, true) then error(fields.err, 0) end
  if fields.err or not fields[2] then return false end
  local state, score = jobState(base, id, fields[1])
  if flag == '0' or flag == '1' then return {state, fields, score or false} end
  -- The newest thousand: a job that logs without end must not hold Redis.
  return {state, fields, score or false, redis.call('LRANGE', base .. id .. ':logs', -1000, -1)}
end

local views = {}
for i = lastField + 1, #ARGV do
  views[#views + 1] = view(string.sub(ARGV[i], 1, 1), string.sub(ARGV[i], 2))
end
return {streamPosition(KEYS[1]), views}
