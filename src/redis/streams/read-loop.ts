/**
 * Keeps at most one run of an asynchronous loop going, and starts the next one a second after a run failed.
 *
 *   stopped ─ start, canRun ─→ running ─ run ended ─→ stopped, or running again if canRun
 *             running ─ run failed ─→ retrying ─ RETRY_MS, or retryNow ─→ running     any ─ close ─→ closed
 */
export interface ReadLoop {
  /** Begins a run, unless one is in progress, a retry is pending, `canRun` is false or the loop is closed. */
  start(): void
  /** Begins a run without waiting for a pending retry. */
  retryNow(): void
  readonly isClosed: boolean
  /** Calls `interrupt` repeatedly until the run has ended, for half a second at most. */
  close(interrupt: () => void): Promise<void>
}

export interface ReadLoopDeps {
  canRun(): boolean
  run(): Promise<void>
  /** Not called once the loop is closed. */
  onFailure(error: Error): void
}

const RETRY_MS = 1_000
const CLOSE_TRIES = 20
const CLOSE_TRY_MS = 25

export function createReadLoop({ canRun, run, onFailure }: ReadLoopDeps): ReadLoop {
  let running: Promise<void> | undefined
  let retryTimer: NodeJS.Timeout | undefined
  let isClosed = false

  function start(): void {
    if (isClosed || running || retryTimer || !canRun()) return
    running = run()
      .catch((error: Error) => {
        if (isClosed) return
        onFailure(error)
        retryTimer = setTimeout(retryNow, RETRY_MS)
      })
      .finally(() => {
        running = undefined
        // `canRun` may have become true while this run was ending.
        start()
      })
  }

  function retryNow(): void {
    clearTimeout(retryTimer)
    retryTimer = undefined
    start()
  }

  async function close(interrupt: () => void): Promise<void> {
    isClosed = true
    clearTimeout(retryTimer)
    for (let tries = 0; running && tries < CLOSE_TRIES; tries++) {
      interrupt()
      let timer: NodeJS.Timeout | undefined
      const timeout = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_TRY_MS)
      })
      await Promise.race([running, timeout])
      clearTimeout(timer)
    }
  }

  return {
    start,
    retryNow,
    get isClosed() {
      return isClosed
    },
    close,
  }
}
