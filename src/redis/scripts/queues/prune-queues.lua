-- Checks names that have not been used for a time. A queue without any key that holds something is forgotten, and any other
-- counts as used now. It breaks the rule that a script uses the keys of one queue, because a command per name would take
-- hours for a million of them.
--   KEYS[1] sorted set: names of the known queues by their last use
--   KEYS[2…] for each name the keys that exist while its queue holds something
--   ARGV    most names to keep · ms after which an unused name is due · most due names to return · keys per name · names
-- Reply: {names forgotten, names removed because there were too many, names left, {names that are due for a check}}
--@include queues/known-queues
local time = now()
local cutoff = time - ARGV[2]
local keysPerName = tonumber(ARGV[4])
local forgotten = 0
for i = 5, #ARGV do
  local usedAt = redis.call('ZSCORE', KEYS[1], ARGV[i])
  -- Another process may have used the queue, or removed the name, since it was found to be due.
  if usedAt and tonumber(usedAt) <= cutoff then
    local first = 2 + (i - 5) * keysPerName
    if redis.call('EXISTS', unpack(KEYS, first, first + keysPerName - 1)) == 0 then
      redis.call('ZREM', KEYS[1], ARGV[i])
      forgotten = forgotten + 1
    else
      redis.call('ZADD', KEYS[1], time, ARGV[i])
    end
  end
end
local removed, left = trim(tonumber(ARGV[1]))
return {forgotten, removed, left, oldest(cutoff, ARGV[3])}
