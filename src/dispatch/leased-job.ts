/** A leased job, and the request and the result of a take. */
import type { JobLease } from '../bullmq/job-lease.ts'

export interface LeasedJob extends JobLease {
  name: string
  /** JSON text in UTF-8. It may be a view of a larger Buffer, so a job that is kept for long must not keep it. */
  data: Buffer
  /** W3C Trace Context of the client that enqueued the job. */
  traceparent: string | undefined
  /** Number of attempts that the job has in total. */
  attempts: number
  createdAtMs: number
  /** When the lease started, ms since 1970. */
  takenAtMs: number
}

export interface TakeRequest {
  queue: string
  /** Most jobs to take, 1 to 100. Fewer are taken when their data are large. */
  max: number
  leaseMs: number
  /** BullMQ stores it as `processedBy`. */
  worker: string | undefined
  /** Limit for a worker that runs in many processes; `undefined`: no limit. */
  concurrencyLimit?: ConcurrencyLimit | undefined
  /** Why the worker could not settle a job. Such a job fails with this reason instead of being given to the worker. */
  whyUnsettleable?: ((job: JobLease) => string | undefined) | undefined
  /** Replaces `max` at the moment of the take; `undefined`: `max` holds. */
  capacity?: TakeCapacity | undefined
}

/** How many jobs a worker can start, reserved just before the take. */
export interface TakeCapacity {
  /** Reserves as many as possible and returns how many. */
  take(): number
  /** Returns the unused part of a reservation. */
  give(count: number): void
}

/** How many jobs a worker may lease in all processes together. Kept in Redis and checked with every take. */
export interface ConcurrencyLimit {
  /** Sorted set of the jobs that the worker leases, scored by when the lease ends. */
  key: string
  limit: number
  /** Hash whose field `revision` must equal `revision`; otherwise nothing is taken. */
  owner: string
  revision: string
  /** Most jobs per `duration` ms. BullMQ's global rate limit of the queue takes precedence. */
  rateLimit: { max: number; duration: number } | undefined
}

export interface TakeResult {
  jobs: LeasedJob[]
  /** Time until the queue's rate limit allows another job, ms; 0: it allows one now. */
  limitedMs: number
  /** When the next delayed job is due, ms since 1970; 0: there is none. */
  nextAtMs: number
  /** The queue limits how many of its jobs are active. */
  isBounded: boolean
  /** The worker's own concurrency limit or capacity is used up, so the queue may still have jobs for others. */
  isLimitReached: boolean
  /** The concurrency limit has another revision in Redis, so nothing was taken. */
  isLimitRevised: boolean
  /** The take found only jobs that must not be worked and ended early, so the queue may have others. */
  mayHaveMore: boolean
}
