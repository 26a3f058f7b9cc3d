-- The state of a job as BullMQ means it, in an order of questions that never walks the backlog: what is in none of the
-- other places is waiting. LPOS on `active` is as long as the workers are many, not as the queue is.
local function jobState(base, id, finishedOn)
  if finishedOn then
    if redis.call('ZSCORE', base .. 'completed', id) then return 'completed' end
    if redis.call('ZSCORE', base .. 'failed', id) then return 'failed' end
  end
  if redis.call('EXISTS', base .. id .. ':lock') == 1 then return 'active' end
  -- The score holds the moment: a retry's backoff does not count from the job's own timestamp.
  local score = redis.call('ZSCORE', base .. 'delayed', id)
  if score then return 'delayed', score end
  if redis.call('ZSCORE', base .. 'prioritized', id) then return 'prioritized' end
  if redis.call('ZSCORE', base .. 'waiting-children', id) then return 'waiting-children' end
  if redis.call('LPOS', base .. 'active', id) then return 'active' end
  return 'waiting'
end
