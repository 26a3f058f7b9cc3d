/**
 * Jobs whose lease ran out go back to wait. BullMQ marks what is active at one look, and at the next moves what is marked
 * and no longer locked; nobody looks unless a worker runs, so it is done here: every 2 s while leases of this process are
 * out, and a moment after somebody has begun to wait for a queue, for what a process that died has left.
 */
import type { Work } from '../queues/work.ts'

export interface StalledRecovery {
  /** A job of this queue is held until then, ms since 1970. */
  held(queue: string, untilMs: number): void
  /** Somebody waits for a job of this queue. */
  wanted(queue: string): void
  close(): void
}

/** A lease that ran out is redelivered within five seconds: marked at one look, moved at the next. */
export const LOOK_EVERY_MS = 2_000
/** Long enough for the looks that mark and move what ran out last. */
const LINGER_MS = 3 * LOOK_EVERY_MS

export function createStalledRecovery(work: Pick<Work, 'recoverStalled'>): StalledRecovery {
  /** Until when each queue is looked at. */
  const until = new Map<string, number>()
  let timer: NodeJS.Timeout | undefined

  function look(): void {
    const now = Date.now()
    for (const [queue, lastMs] of until) {
      if (lastMs < now) until.delete(queue)
      // What cannot be recovered now is at the next look.
      else work.recoverStalled(queue).catch(() => {})
    }
    if (until.size > 0) return
    clearInterval(timer)
    timer = undefined
  }

  function watch(queue: string, untilMs: number): void {
    until.set(queue, Math.max(until.get(queue) ?? 0, untilMs))
    timer ??= setInterval(look, LOOK_EVERY_MS)
  }

  return {
    held: (queue, untilMs) => watch(queue, untilMs + LINGER_MS),
    wanted: (queue) => watch(queue, Date.now() + LINGER_MS),
    close: () => clearInterval(timer),
  }
}
