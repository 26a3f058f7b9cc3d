/**
 * The jobs that takes of this process pass over for a while, since it cannot create the next job of their scheduler. They stay
 * where they are: other workers get them, and the jobs behind them are served.
 */
import { LRUCache } from 'lru-cache'

export interface SkippedJobs {
  /** Returns false if the job cannot be skipped, because too many are. */
  add(queue: string, key: string, schedulerId: string, why: SkipReason): boolean
  /** The jobs that the next take passes over. */
  keys(queue: string): readonly string[]
  /** Time until a take should try one of them again, ms; `undefined`: none is left to try. */
  nextInMs(queue: string): number | undefined
  /** Schedulers whose job was still there when it was tried again: no native worker takes it. */
  stuck(): { queue: string; schedulerId: string }[]
}

/** `refused`: Redis refused the next job, for now. `unknown`: only native workers know when it is due. */
export type SkipReason = 'refused' | 'unknown'

interface SkippedJob {
  schedulerId: string
  why: SkipReason
  /** How often the job was taken and given back. */
  tries: number
  /** In the time of performance.now(). */
  untilMs: number
  /** A take did not pass over it after that time. */
  wasOffered: boolean
}

const QUEUES_MAX = 200
const JOBS_PER_QUEUE_MAX = 100
/** Most characters of a key. */
const KEY_MAX = 1_000
const REFUSED_MS = 1_000
/** Doubled with each try: a scheduler may be replaced by one that this service can continue. */
const UNKNOWN_MS = 30_000
const UNKNOWN_MAX_MS = 300_000
/** A job that is not taken again for so long after its time is gone. */
const FORGET_MS = 90_000

const NONE: readonly string[] = []

export function createSkippedJobs(now = () => performance.now()): SkippedJobs {
  const queues = new LRUCache<string, Map<string, SkippedJob>>({ max: QUEUES_MAX })

  function jobsOf(queue: string): Map<string, SkippedJob> | undefined {
    const jobs = queues.get(queue)
    if (!jobs) return undefined
    for (const [key, { untilMs }] of jobs) if (untilMs + FORGET_MS <= now()) jobs.delete(key)
    if (jobs.size === 0) queues.delete(queue)
    return jobs
  }

  return {
    add(queue, key, schedulerId, why) {
      const jobs = jobsOf(queue) ?? new Map<string, SkippedJob>()
      const tries = (jobs.get(key)?.tries ?? 0) + 1
      if (tries === 1 && (jobs.size >= JOBS_PER_QUEUE_MAX || key.length > KEY_MAX)) return false
      const untilMs = now() + skipMs(why, tries)
      jobs.set(key, { schedulerId, why, tries, untilMs, wasOffered: false })
      queues.set(queue, jobs)
      return true
    },
    keys(queue) {
      const jobs = jobsOf(queue)
      if (!jobs) return NONE
      const keys: string[] = []
      for (const [key, job] of jobs) {
        if (job.untilMs > now()) keys.push(key)
        else job.wasOffered = true
      }
      return keys
    },
    nextInMs(queue) {
      let nextMs = Number.POSITIVE_INFINITY
      for (const { untilMs, wasOffered } of jobsOf(queue)?.values() ?? [])
        if (!wasOffered) nextMs = Math.min(nextMs, Math.max(1, untilMs - now()))
      return nextMs === Number.POSITIVE_INFINITY ? undefined : nextMs
    },
    stuck() {
      return [...queues.keys()].flatMap((queue) =>
        [...(jobsOf(queue)?.values() ?? [])]
          .filter(({ why, tries }) => why === 'unknown' && tries > 1)
          .map(({ schedulerId }) => ({ queue, schedulerId })),
      )
    },
  }
}

function skipMs(why: SkipReason, tries: number): number {
  return why === 'refused' ? REFUSED_MS : Math.min(UNKNOWN_MS * 2 ** (tries - 1), UNKNOWN_MAX_MS)
}
