/** The outcome that a worker reports for a job, and how BullMQ's Job applies it (retries, backoff, retention, parents). */
import { type Job, UnrecoverableError } from 'bullmq'

export type JobOutcome =
  /** `result`: compact JSON text in UTF-8. */
  | { outcome: 'complete'; result: Buffer }
  | {
      outcome: 'fail'
      error: { message: string; stack?: string | undefined }
      unrecoverable: boolean
      /** Delay before the next attempt, ms. Replaces the job's own backoff. */
      retryAfterMs?: number | undefined
    }
  | { outcome: 'retry'; delayMs: number }
  | { outcome: 'release' }

/**
 * Calls the method that BullMQ's own worker calls for this outcome, without the result of a completed job. Resolves with what BullMQ
 * returns.
 */
export function applyOutcome(job: Job, token: string, outcome: JobOutcome): Promise<unknown> {
  switch (outcome.outcome) {
    case 'complete':
      // A placeholder, which setValue (command-recorder.ts) replaces with the result.
      return job.moveToCompleted(null, token, false)
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
  // A stack of our own would show the code of this service.
  thrown.stack = error.stack ?? `${thrown.name}: ${error.message}`
  return thrown
}
