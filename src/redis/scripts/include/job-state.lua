-- The state of a job as BullMQ defines it. The checks are ordered so that none scans the backlog: a job that is found
-- in no other list or set is waiting. LPOS on `active` costs as much as there are workers, not waiting jobs.
local function jobState(base, id, finishedOn)
  if finishedOn then
    if redis.call('ZSCORE', base .. 'completed', id) then return 'completed' end
    if redis.call('ZSCORE', base .. 'failed', id) then return 'failed' end
  end
  if redis.call('EXISTS', base .. id .. ':lock') == 1 then return 'active' end
  -- The score encodes when the job is due. The job's own timestamp and delay do not include the backoff of a retry.
  local score = redis.call('ZSCORE', base .. 'delayed', id)
  if score then return 'delayed', score end
  if redis.call('ZSCORE', base .. 'prioritized', id) then return 'prioritized' end
  if redis.call('ZSCORE', base .. 'waiting-children', id) then return 'waiting-children' end
  if redis.call('LPOS', base .. 'active', id) then return 'active' end
  return 'waiting'
end
