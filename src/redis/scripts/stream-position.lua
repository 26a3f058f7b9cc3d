-- The id of the last entry of a stream; `0-0` before the first.
local function streamPosition(key)
  local last = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if last.err or not last[1] then return '0-0' end
  return last[1][1]
end
