/** Counts the jobs that could not be worked, and logs one line for each, as many as an operator can read. */
import type { Logger } from 'pino'
import type { MalformedJob } from './take-reply.ts'

export interface MalformedJobs {
  note(queue: string, jobs: readonly MalformedJob[]): void
  /** Since the start. */
  count(): number
}

/** Most lines in a window. The next line says how many jobs had none. */
const LINES_MAX = 20
const WINDOW_MS = 60_000
/** Most characters of a job's id in a line. Producers in other languages may store ids of any length. */
const KEY_MAX = 200

export function createMalformedJobs(log: Pick<Logger, 'warn'>, now = () => performance.now()): MalformedJobs {
  let count = 0
  let windowEndsMs = Number.NEGATIVE_INFINITY
  let lines = 0
  let unlogged = 0

  function logJob(queue: string, { key, reason }: MalformedJob): void {
    if (now() >= windowEndsMs) {
      windowEndsMs = now() + WINDOW_MS
      lines = 0
    }
    if (lines === LINES_MAX) {
      unlogged++
      return
    }
    lines++
    log.warn(
      { queue, job: key.slice(0, KEY_MAX), reason, ...(unlogged > 0 ? { unlogged } : {}) },
      'A malformed job cannot be worked',
    )
    unlogged = 0
  }

  return {
    note(queue, jobs) {
      count += jobs.length
      for (const job of jobs) logJob(queue, job)
    },
    count: () => count,
  }
}
