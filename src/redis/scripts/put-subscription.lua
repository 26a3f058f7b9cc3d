-- Writes or removes a subscription if it still has the expected revision, and increments the version counter.
--   KEYS[1] hash of the subscription   KEYS[2] set of the queues that have one   KEYS[3] version counter
--   ARGV[1] queue   ARGV[2] expected revision ('' = must not exist, '*' = any)   ARGV[3] next revision ('' = remove)
--   ARGV[4] the subscription as JSON   ARGV[5] how many subscriptions there may be
-- Returns 1 when written, 0 when the revision is another, -1 when there are too many.
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
