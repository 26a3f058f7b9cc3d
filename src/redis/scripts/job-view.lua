-- A job and its state as of one instant, in one command whose cost does not grow with the backlog.
--   KEYS[1] the job's hash
--   ARGV[1] key base of the queue ("bull:emails:")   ARGV[2] the job's key   ARGV[3] '1' to add its logs
--   ARGV[4…] the fields wanted; the first must be finishedOn, the second timestamp
-- Returns nil, or {state, {field values}, {log lines}, score in the delayed set}.
--@include job-state
local fields = redis.pcall('HMGET', KEYS[1], unpack(ARGV, 4))
-- An id may spell another key of the queue (`42:lock`): what is no hash with a timestamp is no job.
if fields.err or not fields[2] then
  return nil
end
local logs = {}
if ARGV[3] == '1' then
  -- The newest thousand: a job that logs without end must not hold Redis.
  logs = redis.call('LRANGE', KEYS[1] .. ':logs', -1000, -1)
end
local state, score = jobState(ARGV[1], ARGV[2], fields[1])
return {state, fields, logs, score}
