/**
 * Pauses deliveries to an endpoint that fails. States: `closed` (any number in flight), `open` (nothing is sent
 * until the pause ends) and `half-open` (one delivery at a time). Five failures in a row open it for a second;
 * each failure while it is half-open doubles the pause, up to a minute. `Retry-After` pauses it in any state.
 * Waiting jobs stay in their queue and lose no attempt.
 */
export interface EndpointBreaker {
  /** How many more deliveries may start while `inFlight` are in flight: Infinity, 1 or 0. */
  capacity(inFlight: number): number
  /** Time until the pause ends, ms; 0 without a pause. */
  pauseMs(): number
  succeeded(): void
  /** `afterMs`: the endpoint's `Retry-After`, ms. At most 5 minutes of it are honoured. */
  failed(reason: string, afterMs: number | undefined): void
  stats(): EndpointStats
  /** How long the current run of failures has lasted, ms; `undefined` after a success. */
  failingMs(): number | undefined
}

export interface EndpointStats {
  /** True while the breaker is open or half-open. */
  failing: boolean
  /** The reason of the latest failure; a success does not clear it. */
  lastError: string | null
  failuresInARow: number
  retryInMs: number
}

const FAILURE_THRESHOLD = 5
const MIN_PAUSE_MS = 1_000
const MAX_PAUSE_MS = 60_000
const MAX_RETRY_AFTER_MS = 300_000

/** `now`: a monotonic time in ms. Steps of the wall clock must not shorten or lengthen a pause. */
export function createEndpointBreaker(now: () => number = () => performance.now()): EndpointBreaker {
  let failures = 0
  let failingSinceMs: number | undefined
  let pausedUntilMs = Number.NEGATIVE_INFINITY
  let nextPauseMs = MIN_PAUSE_MS
  let lastError: string | null = null
  const isTripped = () => failures >= FAILURE_THRESHOLD
  const pauseMs = () => Math.max(0, pausedUntilMs - now())

  return {
    capacity(inFlight) {
      if (pauseMs() > 0) return 0
      if (!isTripped()) return Number.POSITIVE_INFINITY
      return inFlight === 0 ? 1 : 0
    },
    pauseMs,
    succeeded() {
      failures = 0
      failingSinceMs = undefined
      nextPauseMs = MIN_PAUSE_MS
    },
    failed(reason, afterMs) {
      lastError = reason
      failures++
      failingSinceMs ??= now()
      if (afterMs !== undefined)
        pausedUntilMs = Math.max(pausedUntilMs, now() + Math.min(afterMs, MAX_RETRY_AFTER_MS))
      // Deliveries that were in flight when the pause began must not lengthen it.
      if (!isTripped() || pauseMs() > 0) return
      pausedUntilMs = now() + nextPauseMs
      nextPauseMs = Math.min(nextPauseMs * 2, MAX_PAUSE_MS)
    },
    stats: () => ({
      failing: isTripped(),
      lastError,
      failuresInARow: failures,
      retryInMs: Math.round(pauseMs()),
    }),
    failingMs: () => (failingSinceMs === undefined ? undefined : now() - failingSinceMs),
  }
}
