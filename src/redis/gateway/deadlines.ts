/**
 * Deadlines of equal length, by the thousand, on one timer. Because all are equally long they expire in the order in
 * which they started, so only the oldest needs watching. (A setTimeout per command costs more than a hot read.)
 */
export interface Deadlines {
  start(): Deadline
  /** Expires nothing more and lets go of the timer. */
  close(): void
}

export interface Deadline {
  readonly expired: boolean
  /** Settles as `work` does, or rejects with `reason()` when the time is up first. The work itself goes on. */
  race<T>(work: Promise<T>, reason: () => Error): Promise<T>
  /** Must be called when the work is over. */
  stop(): void
}

export function createDeadlines(lengthMs: number): Deadlines {
  interface Entry extends Deadline {
    at: number
    expired: boolean
    expire: (() => void) | undefined
  }
  const running = new Set<Entry>()
  let timer: NodeJS.Timeout | undefined

  function watch() {
    for (const oldest of running) {
      timer = setTimeout(expireDue, Math.max(1, oldest.at - performance.now()))
      return
    }
    timer = undefined
  }

  function expireDue() {
    const now = performance.now()
    for (const entry of running) {
      if (entry.at > now) break
      running.delete(entry)
      entry.expired = true
      entry.expire?.()
    }
    watch()
  }

  return {
    start() {
      const entry: Entry = {
        at: performance.now() + lengthMs,
        expired: false,
        expire: undefined,
        race: (work, reason) =>
          new Promise((resolve, reject) => {
            if (entry.expired) return reject(reason())
            entry.expire = () => reject(reason())
            work.then(resolve, reject)
          }),
        stop: () => {
          running.delete(entry)
          entry.expire = undefined
          if (running.size === 0 && timer !== undefined) {
            // Kept alive for the next command it would hold up a process that wants to end.
            clearTimeout(timer)
            timer = undefined
          }
        },
      }
      running.add(entry)
      if (timer === undefined) watch()
      return entry
    },
    close() {
      running.clear()
      clearTimeout(timer)
      timer = undefined
    },
  }
}
