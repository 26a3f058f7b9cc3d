/**
 * Renders leased jobs for their worker. Their data pass through as the bytes that are stored: to parse and serialise them would
 * dominate the response.
 */
import type { LeasedJob } from '../dispatch/leased-job.ts'
import type { LeaseSealer } from './lease-token.ts'

export type RenderJobs = (jobs: readonly LeasedJob[], leaseMs: number) => RenderedJobs

export interface RenderedJobs {
  /** About what they take in the response. */
  bytes: number
  /** JSON text: the jobs, separated by commas, between the two texts. */
  between(before: string, after: string): string | Buffer
}

/** To join short strings costs less than to copy bytes. To decode long data, and to encode them again, costs more. */
const SMALL_BYTES = 16_384

/** `onLeased`: called with the time until which a job of the queue is leased, ms since 1970. */
export function createLeaseRenderer(
  sealer: LeaseSealer,
  onLeased: (queue: string, untilMs: number) => void,
): RenderJobs {
  /** The job as a JSON object, up to its data. */
  function renderHead(job: LeasedJob, leaseMs: number): string {
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
    return `${JSON.stringify(fields).slice(0, -1)},"data":`
  }

  return (jobs, leaseMs) => {
    const heads = jobs.map((job) => renderHead(job, leaseMs))
    const bytes = jobs.reduce((sum, { data }, index) => sum + heads[index]!.length + data.length, 0)
    return {
      bytes,
      between: (before, after) =>
        bytes < SMALL_BYTES ? joinText(jobs, heads, before, after) : joinBytes(jobs, heads, before, after),
    }
  }
}

function joinText(jobs: readonly LeasedJob[], heads: readonly string[], before: string, after: string) {
  let text = before
  for (const [index, { data }] of jobs.entries())
    text += `${index === 0 ? '' : ','}${heads[index]}${data.toString()}}`
  return text + after
}

function joinBytes(jobs: readonly LeasedJob[], heads: readonly string[], before: string, after: string) {
  const parts: Buffer[] = []
  let between = before
  for (const [index, { data }] of jobs.entries()) {
    parts.push(Buffer.from(between + heads[index]), data)
    between = '},'
  }
  parts.push(Buffer.from(jobs.length === 0 ? before + after : `}${after}`))
  return Buffer.concat(parts)
}
