/** What a worker is told of a job that it holds. */
import type { TakenJob } from '../queues/work.ts'
import type { LeaseSealer } from './lease.ts'

export type DescribeLease = ReturnType<typeof createDescribeLease>

/** `onHeld`: is told until when a job of a queue is held. */
export function createDescribeLease(sealer: LeaseSealer, onHeld: (queue: string, untilMs: number) => void) {
  return (job: TakenJob, leaseMs: number) => {
    onHeld(job.queue, job.takenAtMs + leaseMs)
    const opts = JSON.parse(job.opts) as { attempts?: number; tm?: string }
    const traceparent = traceparentOf(opts.tm)
    return {
      id: `${job.queue}:${job.key}`,
      name: job.name,
      data: JSON.parse(job.data) as unknown,
      attempt: job.attemptsMade + 1,
      attempts: Math.max(1, opts.attempts ?? 1),
      lease: sealer.seal(job),
      // From when it was taken: a moment before this, which is to the worker's good.
      expiresAt: new Date(job.takenAtMs + leaseMs).toISOString(),
      ...(traceparent === undefined ? {} : { traceparent }),
    }
  }
}

/** BullMQ keeps the carrier of a trace as JSON text. */
function traceparentOf(carrier: string | undefined): string | undefined {
  if (carrier === undefined) return undefined
  try {
    const { traceparent } = JSON.parse(carrier) as { traceparent?: unknown }
    return typeof traceparent === 'string' ? traceparent : undefined
  } catch {
    return undefined
  }
}
