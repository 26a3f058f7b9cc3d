-- The `redis`, `cmsgpack` and `cjson` that BullMQ's worker scripts run with. One malformed job must not end a script midway:
-- by then BullMQ has removed the job, or up to a thousand others that were due, from its lists. So
--   a counter of a job that is not an integer starts again from 0,
--   a priority that is not a finite number counts as 0,
--   a job whose key is not a hash reads as a job without fields, and writes to it do nothing,
--   a parent that is not a JSON object reads as one without an id, and a parent's key that names no queue as none.
-- A script that settles a job asks first whether it exists. With `tolerance.refusesOwn`, that fails if its key is not a hash,
-- while nothing has been written yet.
local tolerance = {refusesOwn = false}
local bullmqRedis, bullmqCjson, bullmqCmsgpack
do
  local pcallRedis = redis.pcall
  -- What a hash command replies about a key that is not a hash.
  local noHash = {HGET = false, HMGET = {}, HGETALL = {}, HEXISTS = 0, HSET = 0, HMSET = {ok = 'OK'}, HINCRBY = 0, HDEL = 0}

  local function recover(failure, command, key, ...)
    local text = failure.err
    if string.find(text, 'WRONGTYPE', 1, true) then
      -- The queue's own hash is not a job.
      if noHash[command] ~= nil and not string.find(key, ':meta$') then return noHash[command] end
    elseif command == 'HINCRBY' and (string.find(text, 'not an integer', 1, true) or string.find(text, 'overflow', 1, true)) then
      redis.call('HDEL', key, (...))
      return redis.call(command, key, ...)
    end
    return error(failure, 0)
  end

  local function call(command, key, ...)
    if command == 'EXISTS' and tolerance.refusesOwn then
      tolerance.refusesOwn = false
      redis.call('HEXISTS', key, 'ats')
    end
    local reply = pcallRedis(command, key, ...)
    if type(reply) == 'table' and reply.err then return recover(reply, command, key, ...) end
    if command == 'HGET' and reply and (...) == 'priority' then
      local priority = tonumber(reply)
      if not priority or priority ~= priority or math.abs(priority) == math.huge then return false end
    elseif command == 'HMGET' and (...) == 'parentKey' and reply[1] and not string.find(reply[1], ':', 1, true) then
      reply[1] = false
    end
    return reply
  end

  -- BullMQ reads the parent by `parentKey` if this one has no id.
  local parentDefaults = {__index = {id = '', queueKey = ''}}
  local function decode(text)
    local ok, value = pcall(cjson.decode, text)
    return setmetatable(ok and type(value) == 'table' and value or {}, parentDefaults)
  end

  bullmqRedis = {call = call, pcall = pcallRedis}
  bullmqCmsgpack = cmsgpack
  bullmqCjson = {decode = decode, encode = cjson.encode}
end
