-- The state of a job as BullMQ defines it (getStateV2), whatever collections the job is in: an upsert of a scheduler delays the
-- next job while a worker still has it. No check scans the backlog: a job that is found in no other collection is waiting, and
-- only the ends of the backlog are searched for one that also waits for children.
local BACKLOG_END = 1000

-- Costs as much as there are workers.
local function isActive(base, id)
  return redis.call('LPOS', base .. 'active', id)
end

local function isAtEnd(list, id)
  return redis.call('LPOS', list, id, 'MAXLEN', BACKLOG_END)
    or redis.call('LPOS', list, id, 'RANK', -1, 'MAXLEN', BACKLOG_END)
end

local function jobState(base, id)
  if redis.call('ZSCORE', base .. 'completed', id) then return 'completed' end
  if redis.call('ZSCORE', base .. 'failed', id) then return 'failed' end
  -- The score encodes when the job is due. The job's own timestamp and delay do not include the backoff of a retry.
  local score = redis.call('ZSCORE', base .. 'delayed', id)
  if score then return 'delayed', score end
  if redis.call('ZSCORE', base .. 'prioritized', id) then return 'prioritized' end
  if isActive(base, id) then return 'active' end
  local isChildless = not redis.call('ZSCORE', base .. 'waiting-children', id)
  if isChildless or isAtEnd(base .. 'wait', id) or isAtEnd(base .. 'paused', id) then return 'waiting' end
  return 'waiting-children'
end
