-- Returns the id of a stream's last entry, or `0-0` for a stream without entries.
local function streamPosition(key)
  local last = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if last.err or not last[1] then return '0-0' end
  return last[1][1]
end
