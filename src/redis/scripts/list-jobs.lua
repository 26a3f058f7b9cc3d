-- Reads one page of a queue's jobs, newest first, as of one instant. Writes nothing.
--   KEYS    the collections (lists and sorted sets of ids) to read in order ("bull:emails:wait"); a bookmark applies to
--           the first
--   ARGV[1] key base of the queue ("bull:emails:")   ARGV[2] most jobs to return
--   ARGV[3] ids that a bookmark keeps on either side of the end of a page of a list   ARGV[4] most bytes of the page
--   ARGV[5] number of fields   ARGV[6…] the fields, those of job-fields.lua first, then the longest value of each, then
--   the bookmark of the previous page, if any
-- Returns {jobs} at the end, else {jobs, collection, bookmark}; a job is {id, state, {field values}, score if delayed}.
-- The state is the job's, which may be another one than that of the collection if the job is in several.
-- A page ends early when the next job does not fit. The first job is there even so: the size of a field stands for the
-- value of one that does not fit.
-- The bookmark is empty if the next page starts with the collection. In a sorted set it is {last id read, its score}, in a
-- list
--   {index of the last id read, length of the list, ids read before it, n, the first of those, the last n ids read,
--    the ids that follow}
--@include include/job-fields
--@include include/job-state
local LISTS = {wait = true, paused = true, active = true}
local STATES = {wait = 'waiting', paused = 'waiting'}
-- Ids without a job are skipped. After this many (3 ms) the page ends short, so that it does not block Redis for long.
local SKIPPED_MAX = 500
-- The start of the next page in a list is searched among NEAR ids on either side of the expected index (0.5 ms), and then,
-- by one id alone, among FAR ids from the nearer end of the list (0.7 ms, twice).
local NEAR = 1000
local FAR = 25000

local base, limit, neighbours = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local left, fieldCount = tonumber(ARGV[4]), tonumber(ARGV[5])
local FIELDS = 6
local LIMITS = FIELDS + fieldCount
local bookmark = {unpack(ARGV, 6 + 2 * fieldCount)}

-- Compares bytes, as Redis does to order members; Lua's own comparison depends on the server's locale.
local function isGreater(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- The rank that follows the member's, or the rank that the member would have: exact, whatever was added, removed or
-- rescored since.
local function startInSet(key, member, score)
  local now = redis.call('ZSCORE', key, member)
  if now and tonumber(now) == tonumber(score) then return redis.call('ZREVRANK', key, member) + 1 end
  -- Among equal scores the greater member comes first. Thousands of members may share a score (jobs that finished in
  -- the same millisecond), hence the binary search.
  local low = redis.call('ZCOUNT', key, '(' .. score, '+inf')
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if isGreater(redis.call('ZREVRANGE', key, middle, middle)[1], member) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- The index at which the next page starts. Jobs enter at the head and leave at the tail. Entering jobs shift the others, so
-- an old index is not reliable. Ids are reliable, but the id of the last job may be gone.
local function startInList(key, offset, lengthThen, span, lastCount, first, ...)
  local ids = {...}
  local last, following = ids[1], ids[lastCount + 1]
  local length = redis.call('LLEN', key)
  -- Growth happened at the head. Jobs that came and went beyond that growth moved the last id deeper still.
  local here = math.max(offset, offset + length - lengthThen)
  if redis.call('LINDEX', key, here) == last then return here + 1 end

  -- The neighbours of the end of a page were adjacent, and those that are left still are, so any of them gives the
  -- exact index. The search starts at the tail, because a job that was worked and retried is back at the head.
  local side = {}
  for i = 1, #ids do
    side[ids[i]] = i <= lastCount and 'before' or 'after'
  end
  local from = math.max(0, here - NEAR)
  local around = redis.call('LRANGE', key, from, here + NEAR)
  local start, firstAt
  for i = #around, 1, -1 do
    local found = side[around[i]]
    if found == 'before' then return from + i end
    if found == 'after' then
      start = from + i - 1
    elseif start then
      return start
    end
    if around[i] == first then firstAt = firstAt or from + i - 1 end
  end
  if start then return start end

  -- The list moved by more than NEAR. Search from the nearer end; only a deeper index can be right.
  local rank = length - here < here and -1 or 1
  for i, id in ipairs({last, following}) do
    local found = redis.call('LPOS', key, id, 'RANK', rank, 'MAXLEN', FAR)
    -- After the last id read, or at the id that followed it.
    if found and found > here then return found + 2 - i end
  end

  -- All neighbours are gone. Usually workers took them together with everything behind them, so that the rest of the
  -- previous page ends the list.
  if firstAt then return firstAt + span + 1 end
  -- Otherwise estimate. This can repeat or skip jobs, but at most as many as came and went since the previous page:
  -- `here` is too close to the head by the number of jobs that both came and were taken, and too far from it by the
  -- number of jobs that were removed from the pages before.
  return here + 1
end

local function read(key, isList, from, count)
  if isList then return redis.call('LRANGE', key, from, from + count - 1) end
  local ids, scores = {}, {}
  local found = redis.call('ZREVRANGE', key, from, from + count - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
    scores[#scores + 1] = found[i + 1]
  end
  return ids, scores
end

-- `false` for an id without a job: a marker that an old version of BullMQ left in the list, or an id without a hash.
-- `nil` if the job does not fit. The first job of a page is read in any case.
local function valuesOf(id, isList, isFirst)
  if isList and id:sub(1, 2) == '0:' then return false end
  local values, bytes = readFields(base .. id, FIELDS, fieldCount, LIMITS, left - #id, isFirst)
  if values then left = left - #id - bytes end
  return values
end

local function bookmarkInList(key, at, idsRead)
  local count = math.min(#idsRead, neighbours)
  local made = {at, redis.call('LLEN', key), #idsRead - 1, count, idsRead[1]}
  for i = 0, count - 1 do
    made[#made + 1] = idsRead[#idsRead - i]
  end
  for _, id in ipairs(redis.call('LRANGE', key, at + 1, at + neighbours)) do
    made[#made + 1] = id
  end
  return made
end

-- A page asks for many jobs, so it reads the ids of active jobs once (1 ms).
local ACTIVE_MAX = 10000
local activeIds
isActive = function(_, id)
  if not activeIds then
    activeIds = {}
    for _, active in ipairs(redis.call('LRANGE', base .. 'active', 0, ACTIVE_MAX - 1)) do
      activeIds[active] = true
    end
  end
  return activeIds[id]
end

-- A job may be in several collections, and its state is the same on every page. Returns the score if it is delayed.
local function stateOn(collection, id)
  local state, score = jobState(base, id)
  -- The search in the lists is bounded, but the job is known to be in this one.
  local isElsewhere = state ~= 'waiting' and state ~= 'waiting-children'
  if isElsewhere or not LISTS[collection] then return state, score end
  return STATES[collection] or collection
end

local function hasMore(keyIndex, index, isList)
  if index < redis.call(isList and 'LLEN' or 'ZCARD', KEYS[keyIndex]) then return true end
  return keyIndex < #KEYS and redis.call('EXISTS', unpack(KEYS, keyIndex + 1)) > 0
end

local jobs, skipped = {}, 0
for keyIndex, key in ipairs(KEYS) do
  local name = key:sub(#base + 1)
  local isList = LISTS[name]
  local index, idsRead, lastScore = 0, {}, nil
  if keyIndex == 1 and #bookmark > 0 then
    if isList then
      local offset, length, span, lastCount = unpack(bookmark, 1, 4)
      index = startInList(
        key,
        tonumber(offset),
        tonumber(length),
        tonumber(span),
        tonumber(lastCount),
        unpack(bookmark, 5)
      )
    else
      index = startInSet(key, bookmark[1], bookmark[2])
    end
  end
  repeat
    local ids, scores = read(key, isList, index, limit - #jobs + skipped)
    for i, id in ipairs(ids) do
      local values = valuesOf(id, isList, #jobs == 0)
      if values == nil then
        -- Only a page that has jobs ends here, so a bookmark from which it started is not needed again.
        if #idsRead == 0 then return {jobs, name, {}} end
        return {jobs, name, isList and bookmarkInList(key, index - 1, idsRead) or {idsRead[#idsRead], lastScore}}
      end
      if values then
        local state, score = stateOn(name, id)
        jobs[#jobs + 1] = {id, state, values, score or nil}
      else
        skipped = skipped + 1
      end
      index = index + 1
      idsRead[#idsRead + 1] = id
      lastScore = scores and scores[i]
      if #jobs == limit or skipped == SKIPPED_MAX then
        if not hasMore(keyIndex, index, isList) then return {jobs} end
        return {jobs, name, isList and bookmarkInList(key, index - 1, idsRead) or {id, scores[i]}}
      end
    end
  until #ids == 0
end
return {jobs}
