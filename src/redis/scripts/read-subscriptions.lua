-- Reads subscriptions. One that cannot be read does not keep the others from being read.
--   KEYS[n] hash of a subscription
--   ARGV[1] most bytes of a subscription's JSON   ARGV[2] bytes of JSON after which no more subscriptions are read
-- Returns one entry per subscription that was read, in order: {revision, JSON}, with '' for a field that is missing, or
-- 'none', 'wrongType' or 'tooLarge'.
local entries, bytes = {}, 0
local maxBytes, enoughBytes = tonumber(ARGV[1]), tonumber(ARGV[2])

local function read(key)
  local values = redis.pcall('HMGET', key, 'revision', 'subscription')
  if values.err then
    if not string.find(values.err, 'WRONGTYPE', 1, true) then error(values) end
    return 'wrongType'
  end
  local revision, json = values[1] or '', values[2] or ''
  if revision == '' and json == '' and redis.call('EXISTS', key) == 0 then return 'none' end
  if #revision + #json > maxBytes then return 'tooLarge' end
  bytes = bytes + #json
  return {revision, json}
end

for index, key in ipairs(KEYS) do
  entries[index] = read(key)
  if bytes >= enoughBytes then break end
end
return entries
