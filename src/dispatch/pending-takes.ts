/** The takes of one queue that wait for jobs, in the order in which they came. Each is resolved or rejected exactly once. */
import type { LeasedJob, TakeRequest, TakeResult } from './leased-job.ts'
import { EMPTY_TAKE } from './take-reply.ts'

export interface PendingTake {
  readonly request: TakeRequest
  resolve(taken: TakeResult): void
  reject(error: unknown): void
  /** The worker has left, or its time is up. */
  hasEnded: boolean
}

export interface PendingTakes extends Iterable<PendingTake> {
  count(): number
  /**
   * Resolves with the jobs passed to `hand`, or without jobs when the time is up or the signal is aborted. Rejects with the
   * error passed to `fail`.
   */
  add(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<TakeResult>
  /** Resolves the take. If it has ended meanwhile, the jobs are given back. */
  hand(take: PendingTake, taken: TakeResult): void
  fail(take: PendingTake, error: unknown): void
  /** Resolves every take without jobs. */
  endAll(): void
}

export interface PendingTakesDeps {
  giveBack(request: TakeRequest, jobs: LeasedJob[]): void
  /** A take was added (1) or removed (-1). */
  onChange(change: 1 | -1): void
}

export function createPendingTakes({ giveBack, onChange }: PendingTakesDeps): PendingTakes {
  const takes = new Set<PendingTake>()

  function remove(take: PendingTake): void {
    if (takes.delete(take)) onChange(-1)
  }

  function end(take: PendingTake): void {
    take.hasEnded = true
    take.resolve(EMPTY_TAKE)
    remove(take)
  }

  function add(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<TakeResult> {
    return new Promise((resolve, reject) => {
      const leave = () => end(take)
      const timeout = waitMs === Number.POSITIVE_INFINITY ? undefined : setTimeout(leave, waitMs)
      const stopWaiting = () => {
        clearTimeout(timeout)
        signal.removeEventListener('abort', leave)
      }
      const take: PendingTake = {
        request,
        hasEnded: false,
        resolve(taken) {
          stopWaiting()
          resolve(taken)
        },
        reject(error) {
          stopWaiting()
          reject(error)
        },
      }
      signal.addEventListener('abort', leave, { once: true })
      takes.add(take)
      onChange(1)
    })
  }

  return {
    count: () => takes.size,
    [Symbol.iterator]: () => takes.values(),
    add,
    hand(take, taken) {
      remove(take)
      if (take.hasEnded) giveBack(take.request, taken.jobs)
      else take.resolve(taken)
    },
    fail(take, error) {
      remove(take)
      take.reject(error)
    },
    endAll() {
      for (const take of [...takes]) end(take)
    },
  }
}
