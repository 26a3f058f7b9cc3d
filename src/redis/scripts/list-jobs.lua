-- One page of a queue's jobs, newest first, as of one instant. Writes nothing.
--   KEYS    the places to read, one after the other ("bull:emails:wait"); with a mark, the first is the one it is in
--   ARGV[1] key base of the queue ("bull:emails:")   ARGV[2] jobs wanted   ARGV[3] how many fields are wanted
--   ARGV[4…] the fields, of which the second must be timestamp, and then the mark of the page before, if there was one
-- Returns {jobs} when there is no more, else {jobs, place, mark}; a job is {id, state, {field values}, score if delayed}.
-- The mark of a sorted set is the last id that was looked at, and its score. That of a list is
--   {its index, length of the list, ids looked at before it, n, the first of those, the last n ids, the next ids}
local LISTS = {wait = true, paused = true, active = true}
local STATES = {wait = 'waiting', paused = 'waiting'}
-- Ids that are no jobs are passed over; after this many (3 ms) the page ends short, so that Redis is not held for long.
local SKIPPED_MAX = 500
-- Ids kept on either side of the end of a page of a list.
local NEIGHBOURS = 3
-- The end of the page before is looked for among this many ids on either side of where it is expected (0.5 ms), and
-- then, by its own id alone, among this many from the nearer end of the list (0.7 ms, twice).
local NEAR = 1000
local FAR = 25000

local base, limit, fieldCount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = {unpack(ARGV, 4, 3 + fieldCount)}
local mark = {unpack(ARGV, 4 + fieldCount)}

-- By bytes, as Redis orders members; the comparison of Lua follows the locale of the server.
local function isGreater(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- The rank after that of the member, or that which it would have: exact, whatever came, went or moved in between.
local function startInSet(key, member, score)
  local now = redis.call('ZSCORE', key, member)
  if now and tonumber(now) == tonumber(score) then return redis.call('ZREVRANK', key, member) + 1 end
  -- Of those with the same score, the greater member comes first. They may be thousands (jobs that finished within one
  -- millisecond), so their ranks are halved until the place is found.
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

-- Where a list goes on. Jobs come at its head and go at its tail, and both move the rest: an index is no place to come
-- back to, only an id is, and that of the last job may have gone.
local function startInList(key, offset, lengthThen, span, lastCount, first, ...)
  local ids = {...}
  local last, following = ids[1], ids[lastCount + 1]
  local length = redis.call('LLEN', key)
  -- What grew the list came at its head. What came and went beside that moved the place deeper still.
  local here = math.max(offset, offset + length - lengthThen)
  if redis.call('LINDEX', key, here) == last then return here + 1 end

  -- The ids around the end of a page stood side by side, and whichever are left still do: any one of them tells the
  -- place exactly. The search is from the tail, since a job that has been worked and is back for another try is
  -- at the head.
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

  -- More came and went meanwhile than that. Seen from the nearer end, and only deeper, where it must be.
  local rank = length - here < here and -1 or 1
  for i, id in ipairs({last, following}) do
    local found = redis.call('LPOS', key, id, 'RANK', rank, 'MAXLEN', FAR)
    -- Behind the last one, or at the one that followed it.
    if found and found > here then return found + 2 - i end
  end

  -- All neighbours are gone. Mostly the workers have taken them, and with them what was behind: then what is left of
  -- the page before ends the list.
  if firstAt then return firstAt + span + 1 end
  -- Else an estimate, which can repeat or skip jobs, but no more of them than came and went since the page before:
  -- `here` is too near to the head by as many as both came and were taken, and too far by as many as were removed out
  -- of the pages before.
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

-- `false` for what is no job: a marker that old versions of BullMQ left in the list, or an id without its hash.
local function valuesOf(id, isList)
  if isList and id:sub(1, 2) == '0:' then return false end
  local values = redis.pcall('HMGET', base .. id, unpack(fields))
  return not values.err and values[2] and values
end

local function markInList(key, at, looked)
  local count = math.min(#looked, NEIGHBOURS)
  local found = {at, redis.call('LLEN', key), #looked - 1, count, looked[1]}
  for i = 0, count - 1 do
    found[#found + 1] = looked[#looked - i]
  end
  for _, id in ipairs(redis.call('LRANGE', key, at + 1, at + NEIGHBOURS)) do
    found[#found + 1] = id
  end
  return found
end

local function isMore(place, index, isList)
  if index < redis.call(isList and 'LLEN' or 'ZCARD', KEYS[place]) then return true end
  return place < #KEYS and redis.call('EXISTS', unpack(KEYS, place + 1)) > 0
end

local jobs, skipped = {}, 0
for place, key in ipairs(KEYS) do
  local name = key:sub(#base + 1)
  local isList, state = LISTS[name], STATES[name] or name
  local index, looked = 0, {}
  if place == 1 and #mark > 0 then
    if isList then
      local offset, length, span, lastCount = unpack(mark, 1, 4)
      index = startInList(
        key,
        tonumber(offset),
        tonumber(length),
        tonumber(span),
        tonumber(lastCount),
        unpack(mark, 5)
      )
    else
      index = startInSet(key, mark[1], mark[2])
    end
  end
  repeat
    local ids, scores = read(key, isList, index, limit - #jobs + skipped)
    for i, id in ipairs(ids) do
      local values = valuesOf(id, isList)
      if values then
        jobs[#jobs + 1] = {id, state, values, name == 'delayed' and scores[i] or nil}
      else
        skipped = skipped + 1
      end
      index = index + 1
      looked[#looked + 1] = id
      if #jobs == limit or skipped == SKIPPED_MAX then
        if not isMore(place, index, isList) then return {jobs} end
        return {jobs, name, isList and markInList(key, index - 1, looked) or {id, scores[i]}}
      end
    end
  until #ids == 0
end
return {jobs}
