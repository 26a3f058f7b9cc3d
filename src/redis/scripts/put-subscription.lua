-- Writes or removes a subscription if it still has the expected revision, and increments the version counter.
--   KEYS[1] hash of the subscription   KEYS[2] set of the queues that have one   KEYS[3] version counter
--   ARGV[1] queue   ARGV[2] expected revision ('' = none, '*' = any)   ARGV[3] next revision ('' = remove)
--   ARGV[4] the subscription as JSON   ARGV[5] how many subscriptions there may be
-- A key of another type counts as a subscription without a revision, and is replaced.
-- Returns 1 when written, 0 when the revision is another, -1 when there are too many, -2 when KEYS[2] is not a set.
local function isWrongType(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true)
end

local members = redis.pcall('SCARD', KEYS[2])
if isWrongType(members) then return -2 end
if type(members) == 'table' then return members end
local revision = redis.pcall('HGET', KEYS[1], 'revision')
local isDamaged = isWrongType(revision)
if type(revision) == 'table' and not isDamaged then return revision end
if isDamaged or not revision then revision = '' end
if ARGV[2] ~= '*' and ARGV[2] ~= revision then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], ARGV[1])
else
  local isAdded = redis.call('SADD', KEYS[2], ARGV[1]) == 1
  if isAdded and redis.call('SCARD', KEYS[2]) > tonumber(ARGV[5]) then
    redis.call('SREM', KEYS[2], ARGV[1])
    return -1
  end
  if isDamaged then redis.call('DEL', KEYS[1]) end
  redis.call('HSET', KEYS[1], 'revision', ARGV[3], 'subscription', ARGV[4])
end
local counted = redis.pcall('INCR', KEYS[3])
if type(counted) == 'table' then
  -- Only a value that something else wrote cannot be incremented.
  redis.call('DEL', KEYS[3])
  redis.call('INCR', KEYS[3])
end
return 1
