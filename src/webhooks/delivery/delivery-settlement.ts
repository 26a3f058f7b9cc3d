/** Turns the verdict on a delivery into the outcome of its job and, if it adds information, a line for the job's log. */
import type { JobOutcome } from '../../bullmq/job-outcome.ts'
import type { LeasedJob } from '../../dispatch/leased-job.ts'
import type { Settlement } from '../../dispatch/worker-commands.ts'
import type { DeliveryResult } from '../endpoints/webhook-client.ts'
import type { Verdict } from './verdict.ts'

export interface EndedDelivery extends Settlement {
  lease: LeasedJob
}

/** `nowMs`: the time that the line in the job's log starts with, ms since 1970. */
export function toSettlement(
  job: LeasedJob,
  result: DeliveryResult,
  verdict: Verdict,
  nowMs: number,
): EndedDelivery {
  const outcome = toOutcome(verdict)
  const message = logMessage(job.attemptsMade, result, verdict)
  if (message === undefined) return { lease: job, outcome }
  const log = `${new Date(nowMs).toISOString()} webhook attempt ${job.attemptsMade + 1}: ${message}`
  return { lease: job, outcome, log }
}

function toOutcome(verdict: Verdict): JobOutcome {
  switch (verdict.kind) {
    case 'complete':
      return { outcome: 'complete', result: verdict.result }
    case 'gone':
    case 'postpone':
      return { outcome: 'release' }
    default: {
      const { kind, reason: message } = verdict
      const retryAfterMs = kind === 'retry' ? verdict.afterMs : undefined
      return { outcome: 'fail', error: { message }, unrecoverable: kind === 'fail', retryAfterMs }
    }
  }
}

/**
 * `undefined` for a job that is delivered at the first attempt: its log would repeat what the job shows. Also for a delivery
 * that could not start: no attempt limits how often that happens.
 */
function logMessage(attemptsMade: number, result: DeliveryResult, verdict: Verdict): string | undefined {
  if (verdict.kind === 'postpone') return undefined
  if (verdict.kind !== 'complete') return verdict.reason
  return attemptsMade === 0 ? undefined : `answered ${result.status} in ${result.ms} ms`
}
