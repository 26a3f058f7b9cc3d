/**
 * Thousands of deadlines of equal length on one timer. Equal deadlines expire in the order in which they
 * started, so only the oldest needs a timer. (A setTimeout per command costs more than reading a status from
 * memory.)
 */
export interface Deadlines {
  start(): Deadline
  /** Releases the timer; no running deadline expires any more. */
  close(): void
}

export interface Deadline {
  readonly expired: boolean
  /**
   * Settles as `work` does, or rejects with `reason()` if the deadline expires first. The work itself
   * continues.
   */
  race<T>(work: Promise<T>, reason: () => Error): Promise<T>
  /** Must be called when the work is done. */
  stop(): void
}

interface RunningDeadline extends Deadline {
  at: number
  expired: boolean
  onExpiry: (() => void) | undefined
}

export function createDeadlines(lengthMs: number): Deadlines {
  const running = new Set<RunningDeadline>()
  let timer: NodeJS.Timeout | undefined

  function watchOldest(): void {
    for (const oldest of running) {
      timer = setTimeout(expireDue, Math.max(1, oldest.at - performance.now()))
      return
    }
    timer = undefined
  }

  function expireDue(): void {
    const now = performance.now()
    for (const deadline of running) {
      if (deadline.at > now) break
      running.delete(deadline)
      deadline.expired = true
      deadline.onExpiry?.()
    }
    watchOldest()
  }

  function start(): Deadline {
    const deadline: RunningDeadline = {
      at: performance.now() + lengthMs,
      expired: false,
      onExpiry: undefined,
      race: (work, reason) =>
        new Promise((resolve, reject) => {
          if (deadline.expired) return reject(reason())
          deadline.onExpiry = () => reject(reason())
          work.then(resolve, reject)
        }),
      stop: () => {
        running.delete(deadline)
        deadline.onExpiry = undefined
        if (running.size === 0) stopTimer()
      },
    }
    running.add(deadline)
    if (timer === undefined) watchOldest()
    return deadline
  }

  function stopTimer(): void {
    if (timer === undefined) return
    // A timer left for the next command would keep an ending process alive.
    clearTimeout(timer)
    timer = undefined
  }

  function close(): void {
    running.clear()
    stopTimer()
  }

  return { start, close }
}
