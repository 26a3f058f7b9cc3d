/**
 * Whether a receiver should be sent anything now. After a few failures in a row nothing is sent for a second, then one job
 * alone; while it fails, the pauses double, up to a minute. A receiver that says when to come again (429, 503) is left alone
 * until then. Jobs wait in their queue meanwhile, and lose no attempt.
 */
export interface EndpointBreaker {
  /** How many more deliveries may be begun while so many are on their way: any number, one, or none. */
  capacity(inFlight: number): number
  /** Until something may be sent again, ms; 0: now. */
  pauseMs(): number
  succeeded(): void
  /** `afterMs`: it has said so. */
  failed(reason: string, afterMs: number | undefined): void
  stats(): EndpointStats
  /** Since when every delivery has failed, ms since 1970; `undefined`: the last one has not. */
  failingSinceMs(): number | undefined
}

export interface EndpointStats {
  failing: boolean
  /** What the last failure was. */
  lastError: string | null
  failuresInARow: number
  retryInMs: number
}

const FAILURES = 5
const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 60_000
const LONGEST_WISH_MS = 300_000

export function createEndpointBreaker(now: () => number = Date.now): EndpointBreaker {
  let failures = 0
  let sinceMs: number | undefined
  let pausedUntil = 0
  let nextPauseMs = FIRST_PAUSE_MS
  let lastError: string | null = null
  const isOpen = () => failures >= FAILURES
  const pauseMs = () => Math.max(0, pausedUntil - now())

  return {
    capacity(inFlight) {
      if (pauseMs() > 0) return 0
      if (!isOpen()) return Number.POSITIVE_INFINITY
      return inFlight === 0 ? 1 : 0
    },
    pauseMs,
    succeeded() {
      failures = 0
      sinceMs = undefined
      nextPauseMs = FIRST_PAUSE_MS
    },
    failed(reason, afterMs) {
      lastError = reason
      failures++
      sinceMs ??= now()
      if (afterMs !== undefined)
        pausedUntil = Math.max(pausedUntil, now() + Math.min(afterMs, LONGEST_WISH_MS))
      // Those that were on their way when it began to pause say nothing new.
      if (!isOpen() || pauseMs() > 0) return
      pausedUntil = now() + nextPauseMs
      nextPauseMs = Math.min(nextPauseMs * 2, LONGEST_PAUSE_MS)
    },
    stats: () => ({
      failing: isOpen(),
      lastError,
      failuresInARow: failures,
      retryInMs: Math.round(pauseMs()),
    }),
    failingSinceMs: () => sinceMs,
  }
}
