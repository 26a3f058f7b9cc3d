/** How a delivery ends for its job: its outcome, and a line in its log where there is something to explain. */

import type { JobOutcome } from '../../bullmq/job-outcome.ts'
import type { LeasedJob } from '../../dispatch/leased-job.ts'
import type { Settlement } from '../../dispatch/worker-commands.ts'
import type { Verdict } from './verdict.ts'
import type { DeliveryResult } from './webhook-client.ts'

export interface EndedDelivery extends Settlement {
  lease: LeasedJob
}

export function settlementOf(job: LeasedJob, answer: DeliveryResult, verdict: Verdict): EndedDelivery {
  return { lease: job, outcome: outcomeOf(verdict), ...logOf(job, answer, verdict) }
}

function outcomeOf(verdict: Verdict): JobOutcome {
  switch (verdict.kind) {
    case 'complete':
      return { outcome: 'complete', result: verdict.result }
    case 'gone':
      return { outcome: 'release' }
    default: {
      const { kind, reason: message } = verdict
      const retryAfterMs = kind === 'retry' ? verdict.afterMs : undefined
      return { outcome: 'fail', error: { message }, unrecoverable: kind === 'fail', retryAfterMs }
    }
  }
}

/** Of a job that is delivered at once there is nothing to tell that it does not show itself. */
function logOf({ attemptsMade }: LeasedJob, answer: DeliveryResult, verdict: Verdict): { log?: string } {
  const isDelivered = verdict.kind === 'complete'
  if (isDelivered && attemptsMade === 0) return {}
  const said = isDelivered ? `answered ${answer.status} in ${answer.ms} ms` : verdict.reason
  return { log: `${new Date().toISOString()} webhook attempt ${attemptsMade + 1}: ${said}` }
}
