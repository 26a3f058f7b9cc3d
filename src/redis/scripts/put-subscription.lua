-- Writes a subscription, or takes it away, unless another has been there first.
--   KEYS[1] hash of the subscription   KEYS[2] set of the queues that have one   KEYS[3] counter of changes
--   ARGV[1] queue   ARGV[2] the revision it must have ('' none, '*' any)   ARGV[3] its next revision ('': take it away)
--   ARGV[4] the subscription   ARGV[5] how many there may be
-- Returns 1, 0 when it has another revision, -1 when there are too many.
local revision = redis.call('HGET', KEYS[1], 'revision') or ''
if ARGV[2] ~= '*' and ARGV[2] ~= revision then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], ARGV[1])
else
  if revision == '' and redis.call('SCARD', KEYS[2]) >= tonumber(ARGV[5]) then return -1 end
  redis.call('HSET', KEYS[1], 'revision', ARGV[3], 'subscription', ARGV[4])
  redis.call('SADD', KEYS[2], ARGV[1])
end
redis.call('INCR', KEYS[3])
return 1
