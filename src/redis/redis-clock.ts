/**
 * The time on Redis' clock, which all replicas of the service share: every time that is stored in Redis or compared with a
 * stored one. It counts on from the last TIME reply with the monotonic clock, so that neither a step of the machine's clock
 * nor a replica whose clock is wrong changes when jobs are due or leases end.
 */
export interface RedisClock {
  /**
   * Ms since 1970, a whole number. The machine's time until Redis has replied for the first time. May go back by a few ms
   * when a reply shows that the estimate was ahead.
   */
  nowMs(): number
  /** Reads Redis' time soon: call it when a connection was made, since it may lead to another server. */
  sync(): void
  /** The machine's clock minus Redis' clock, ms; `undefined` until Redis has replied. */
  machineOffsetMs(): number | undefined
}

/** How old the last reading may be when the time is used. Clocks drift by less than 1 ms within it; a paused machine does not. */
const REFRESH_MS = 10_000

/**
 * `readTime` resolves with the reply of TIME: seconds and microseconds, as texts. While it rejects, the last reading counts
 * on.
 */
export function createRedisClock(readTime: () => Promise<(string | number)[]>): RedisClock {
  /** Redis' time minus performance.now(). */
  let offsetMs = Date.now() - performance.now()
  let refreshAtMs = Number.POSITIVE_INFINITY
  let isSynced = false
  let isReading = false

  async function read(): Promise<void> {
    const sentAtMs = performance.now()
    const [seconds, microseconds] = await readTime()
    const redisMs = Number(seconds) * 1_000 + Number(microseconds) / 1_000
    offsetMs = revisedOffset(offsetMs, redisMs, sentAtMs, performance.now())
    isSynced = true
  }

  function sync(): void {
    if (isReading) return
    isReading = true
    const done = () => {
      isReading = false
      refreshAtMs = performance.now() + REFRESH_MS
    }
    read().then(done, done)
  }

  function nowMs(): number {
    const now = performance.now()
    if (now > refreshAtMs) sync()
    return Math.floor(now + offsetMs)
  }

  return {
    nowMs,
    sync,
    machineOffsetMs: () => (isSynced ? Date.now() - nowMs() : undefined),
  }
}

/**
 * Redis read its clock between `sentAtMs` and `receivedAtMs`. An offset that this allows is kept, so that a slow reply does
 * not make the clock jump; any other is replaced by the middle of what is possible.
 */
export function revisedOffset(
  offsetMs: number,
  redisMs: number,
  sentAtMs: number,
  receivedAtMs: number,
): number {
  const isPossible = redisMs - receivedAtMs <= offsetMs && offsetMs <= redisMs - sentAtMs
  return isPossible ? offsetMs : redisMs - (sentAtMs + receivedAtMs) / 2
}
