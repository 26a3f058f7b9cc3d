-- Positions of the fields that scripts read themselves; JOB_FIELDS in job-hash.ts starts with them, in this order.
local FINISHED_ON, TIMESTAMP = 1, 2
