/** What a worker is told of a job that it holds. */
import type { LeasedJob } from '../dispatch/leased-job.ts'
import type { LeaseSealer } from './lease-token.ts'

/** JSON text. Data are not parsed and written again: that would be most of what an answer costs. */
export type RenderLease = (job: LeasedJob, leaseMs: number) => string

/** `onHeld`: is told until when a job of a queue is held. */
export function createLeaseRenderer(
  sealer: LeaseSealer,
  onHeld: (queue: string, untilMs: number) => void,
): RenderLease {
  return (job, leaseMs) => {
    const { queue, key, name, data, attemptsMade, attempts, takenAtMs, traceparent } = job
    // From when it was taken: a moment before the lock was set, which is to the worker's good.
    const untilMs = takenAtMs + leaseMs
    onHeld(queue, untilMs)
    const told = {
      id: `${queue}:${key}`,
      ...{ name, attempt: attemptsMade + 1, attempts, lease: sealer.seal(job) },
      ...{ expiresAt: new Date(untilMs).toISOString(), traceparent },
    }
    return `${JSON.stringify(told).slice(0, -1)},"data":${data}}`
  }
}
