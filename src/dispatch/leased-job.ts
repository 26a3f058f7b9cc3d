/** A job that somebody holds by BullMQ's lock, and what is asked of one who wants to hold some. */

import type { JobLease } from '../bullmq/job-lease.ts'

export interface LeasedJob extends JobLease {
  name: string
  /** JSON text. */
  data: string
  /** W3C Trace Context of whoever enqueued it. */
  traceparent: string | undefined
  /** How many attempts it has in all. */
  attempts: number
  createdAtMs: number
  /** The lock runs from then on, ms since 1970. */
  takenAtMs: number
}

export interface TakeRequest {
  queue: string
  /** 1 to 100; fewer are taken when their data are large. */
  max: number
  leaseMs: number
  /** Shown by BullMQ as `processedBy`. */
  worker: string | undefined
  /** Of a consumer that many processes are; `undefined`: as many as there are. */
  concurrencyLimit?: ConcurrencyLimit | undefined
  /** How many it has room for turns out in the moment in which they are taken; `undefined`: `max`. */
  capacity?: { take(): number; give(count: number): void } | undefined
}

/** How many jobs a consumer may hold in all its processes together. Kept in Redis, and looked at with every take. */
export interface ConcurrencyLimit {
  /** A sorted set: the jobs it holds, and until when. */
  key: string
  limit: number
  /** A hash whose field `revision` is still this one; else nothing is taken. */
  owner: string
  revision: string
  /** The queue's own limit is stricter where it has one. */
  rateLimit: { max: number; duration: number } | undefined
}

export interface TakeResult {
  jobs: LeasedJob[]
  /** The queue's rate limit is reached for so long, ms; else 0. */
  limitedMs: number
  /** When the next delayed job is due, ms since 1970; 0: there is none. */
  nextAtMs: number
  /** The queue has a bound on what is active at once. */
  isBounded: boolean
  /** The share is used up: this says nothing of the queue. */
  isLimitReached: boolean
  /** The share's revision is another, so that nothing was taken. */
  isLimitRevised: boolean
}
