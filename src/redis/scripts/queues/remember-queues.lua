-- Records that queues are in use.
--   KEYS[1] sorted set: names of the known queues by their last use
--   ARGV    most names to keep · ms after which an unused name is due for a check · most due names to return · names
-- Reply: {names removed because there were too many, names left, {names that are due for a check}}
--@include queues/known-queues
local time = now()
for i = 4, #ARGV do redis.call('ZADD', KEYS[1], time, ARGV[i]) end
local removed, left = trim(tonumber(ARGV[1]))
return {removed, left, oldest(time - ARGV[2], ARGV[3])}
