/** What a worker says became of a job, and what BullMQ's Job does about it: retries, backoff, retention and parents are its own. */
import { type Job, UnrecoverableError } from 'bullmq'

export type JobOutcome =
  | { outcome: 'complete'; result: unknown }
  | {
      outcome: 'fail'
      error: { message: string; stack?: string | undefined }
      unrecoverable: boolean
      /** Before the next attempt, instead of the job's own backoff. */
      retryAfterMs?: number | undefined
    }
  | { outcome: 'retry'; delayMs: number }
  | { outcome: 'release' }

/** What BullMQ's processor does with the outcome of a job. */
export function applyOutcome(job: Job, token: string, outcome: JobOutcome): Promise<unknown> {
  switch (outcome.outcome) {
    case 'complete':
      return job.moveToCompleted(outcome.result, token, false)
    case 'fail':
      if (outcome.retryAfterMs !== undefined)
        job.opts.backoff = { type: 'fixed', delay: outcome.retryAfterMs }
      return job.moveToFailed(toError(outcome), token, false)
    case 'retry':
      return job.moveToDelayed(Date.now() + outcome.delayMs, token)
    case 'release':
      return job.moveToWait(token)
  }
}

function toError({ error, unrecoverable }: JobOutcome & { outcome: 'fail' }): Error {
  const thrown = unrecoverable ? new UnrecoverableError(error.message) : new Error(error.message)
  // The trace is the worker's; ours would tell of this service.
  thrown.stack = error.stack ?? `${thrown.name}: ${error.message}`
  return thrown
}
