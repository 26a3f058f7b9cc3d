/**
 * Renders leased jobs for their worker. Their data pass through as text: to parse and serialise them would dominate the response.
 * The response is a string, because one more large Buffer for each makes V8 collect all garbage more often: twice the CPU at 100 KB.
 */
import type { LeasedJob } from '../dispatch/leased-job.ts'
import type { LeaseSealer } from './lease-token.ts'

/** JSON text: the jobs, separated by commas. */
export type RenderJobs = (jobs: readonly LeasedJob[], leaseMs: number) => string

/** `onLeased`: called with the time until which a job of the queue is leased, ms since 1970. */
export function createLeaseRenderer(
  sealer: LeaseSealer,
  onLeased: (queue: string, untilMs: number) => void,
): RenderJobs {
  function renderJob(job: LeasedJob, leaseMs: number): string {
    // takenAtMs is a moment before the lock was set, so a worker never relies on a lock that has expired.
    const untilMs = job.takenAtMs + leaseMs
    onLeased(job.queue, untilMs)
    const fields = {
      id: `${job.queue}:${job.key}`,
      name: job.name,
      attempt: job.attemptsMade + 1,
      attempts: job.attempts,
      lease: sealer.seal(job),
      expiresAt: new Date(untilMs).toISOString(),
      traceparent: job.traceparent,
    }
    return `${JSON.stringify(fields).slice(0, -1)},"data":${job.data.toString()}}`
  }

  return (jobs, leaseMs) => jobs.map((job) => renderJob(job, leaseMs)).join()
}
