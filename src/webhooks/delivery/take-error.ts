/** Why a subscription takes no jobs: the error of its takes, if repeating them does not help. Logged when it begins. */
import type { Logger } from 'pino'
import type { TakeResult } from '../../dispatch/leased-job.ts'
import { asSluiceError, errorTable, toProblem } from '../../errors.ts'

export interface TakeError {
  /** What is wrong and what to do, for people; `undefined`: takes succeed. */
  text(): string | undefined
  /** Returns `taking`. */
  watch(taking: Promise<TakeResult>): Promise<TakeResult>
}

export interface TakeErrorDeps {
  /** A key that takes read is damaged. It may be that of the subscription. */
  onChanged(queue: string): void
  log: Pick<Logger, 'error'>
  /** A monotonic time in ms. */
  now?: () => number
}

/** A take that fails is repeated after about a second. One that succeeds may wait for jobs, and says nothing until then. */
const TTL_MS = 10_000

export function createTakeError(
  queue: string,
  { onChanged, log, now = () => performance.now() }: TakeErrorDeps,
): TakeError {
  let reason: string | undefined
  let failedAtMs = 0
  const text = () => (now() - failedAtMs < TTL_MS ? reason : undefined)

  function note(failure: unknown): void {
    const error = asSluiceError(failure)
    const before = text()
    reason = errorTable[error.code].retryable ? undefined : toProblem(error).detail.replace(/\.$/, '')
    failedAtMs = now()
    if (reason !== undefined && reason !== before) log.error({ queue, reason }, 'Webhook takes no jobs')
    if (error.code === 'QUEUE_DAMAGED') onChanged(queue)
  }

  return {
    text,
    watch(taking) {
      taking.then(() => {
        reason = undefined
      }, note)
      return taking
    },
  }
}
