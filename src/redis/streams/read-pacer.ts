/** Decides when the next read of the streams may begin: a token bucket of a few reads, refilled by one per pause. */
export interface ReadPacer {
  /** Resolves when the next read may begin. */
  next(): Promise<void>
  /** Resolves a pending `next()` at once. */
  close(): void
}

/**
 * Lets a few reads fetch thousands of entries per second. BURST_READS lets a lone event be read at once.
 */
const PAUSE_MS = 25
/** Used while a worker waits for a job, so that it gets one within a few ms. */
const URGENT_PAUSE_MS = 5
const BURST_READS = 4

export function createReadPacer(isUrgent: () => boolean = () => false): ReadPacer {
  let tokens = BURST_READS
  let refilledAt = performance.now()
  let waiting: { timer: NodeJS.Timeout; resolve(): void } | undefined
  return {
    async next(): Promise<void> {
      const now = performance.now()
      const pauseMs = isUrgent() ? URGENT_PAUSE_MS : PAUSE_MS
      tokens = Math.min(BURST_READS, tokens + (now - refilledAt) / pauseMs)
      refilledAt = now
      tokens--
      if (tokens >= 0) return
      await new Promise<void>((resolve) => {
        waiting = { timer: setTimeout(resolve, -tokens * pauseMs), resolve }
      })
      waiting = undefined
    },
    close(): void {
      clearTimeout(waiting?.timer)
      waiting?.resolve()
    },
  }
}
