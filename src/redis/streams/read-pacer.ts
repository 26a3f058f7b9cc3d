/**
 * When the next read of the streams may begin, and how late what it brings is.
 */
export interface ReadPacer {
  /** Resolves when it is time. */
  next(): Promise<void>
  /** Whoever waits goes on at once. */
  close(): void
}

export interface LagWindow {
  note(ms: number): void
  /** The worst of the last 10 to 20 s. */
  worstMs(): number
}

/** A few reads may follow each other at once, so that a lone event is heard at once; past that, one each PAUSE_MS. */
const PAUSE_MS = 25
/** While a worker waits for a job, which is to be in its hand within a few ms. */
const URGENT_PAUSE_MS = 5
const READS_AT_ONCE = 4
const LAG_WINDOW_MS = 10_000

/** A few reads at once, then one each PAUSE_MS, or more often while it is urgent. */
export function createReadPacer(isUrgent: () => boolean = () => false): ReadPacer {
  let tokens = READS_AT_ONCE
  let filledAt = performance.now()
  let waiting: { timer: NodeJS.Timeout; end(): void } | undefined
  return {
    async next(): Promise<void> {
      const now = performance.now()
      const pauseMs = isUrgent() ? URGENT_PAUSE_MS : PAUSE_MS
      tokens = Math.min(READS_AT_ONCE, tokens + (now - filledAt) / pauseMs)
      filledAt = now
      tokens--
      if (tokens >= 0) return
      await new Promise<void>((end) => {
        waiting = { timer: setTimeout(end, -tokens * pauseMs), end }
      })
      waiting = undefined
    },
    close(): void {
      clearTimeout(waiting?.timer)
      waiting?.end()
    },
  }
}

/** The worst of this window and the one before. */
export function createLagWindow(): LagWindow {
  let since = performance.now()
  let worst = 0
  let before = 0
  const turn = () => {
    const age = performance.now() - since
    if (age < LAG_WINDOW_MS) return
    before = age < 2 * LAG_WINDOW_MS ? worst : 0
    worst = 0
    since = performance.now()
  }
  return {
    note(ms: number): void {
      turn()
      if (ms > worst) worst = ms
    },
    worstMs(): number {
      turn()
      return Math.round(Math.max(worst, before))
    },
  }
}
