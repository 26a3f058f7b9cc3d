/** The lease of a job: its lock, and the options by which BullMQ settles the job. */

/** Everything needed to settle or extend a leased job. */
export interface JobLease {
  queue: string
  key: string
  /** The value of BullMQ's lock. */
  token: string
  /** The options that decide what happens when the job ends (stored-options.ts), as JSON text under BullMQ's stored names. */
  opts: string
  attemptsMade: number
  attemptsStarted: number
}
