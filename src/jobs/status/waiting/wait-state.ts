/**
 * The outcomes of a check of a job for the requests that wait for it, as functions of plain values. The check finds the job
 *
 *   present      as Redis has it; finished or not
 *   departed     gone, but its final event arrived: the result is rebuilt from that event (removeOnComplete)
 *   unexplained  gone, but the events up to the read have not all arrived: check again at the next tick
 *   missing      gone for another reason, or never there
 */
import type { Feed } from '../../../events/feed-registry.ts'
import type { QueueEvent } from '../../../events/queue-events.ts'
import { isAfter } from '../../../redis/streams/stream-position.ts'
import { briefJob, type CachedJob, type Found, toCachedJob } from '../cache-entry.ts'
import { isNotModified, type Until } from '../polling.ts'
import { finishedBy } from './departed-job.ts'

/** The knowledge about a job between two checks. */
export interface KnownJob {
  /** As last seen. */
  last: CachedJob | undefined
  /** The completed or failed event, unless another event followed it. */
  finalEvent: QueueEvent | undefined
}

export type CheckOutcome = 'present' | 'departed' | 'unexplained' | 'missing'

/** Updates `known` by an event. */
export function noteEvent(known: KnownJob, event: QueueEvent): void {
  known.finalEvent = event.event === 'completed' || event.event === 'failed' ? event : undefined
  if (event.event === 'removed') known.last = undefined
}

/** `feed`: that of the job's queue. */
export function outcomeOf(
  found: Pick<Found, 'job' | 'position'>,
  { last, finalEvent }: KnownJob,
  feed: Pick<Feed, 'isLive' | 'position'> | undefined,
): CheckOutcome {
  if (found.job) return 'present'
  if (!last) return 'missing'
  if (finalEvent) return 'departed'
  return feed?.isLive && isAfter(found.position, feed.position) ? 'unexplained' : 'missing'
}

/** The result for a departed job, without a value of more than `maxBytes`. */
export function departedJob({ last, finalEvent }: KnownJob, maxBytes: number): CachedJob | undefined {
  return last && finalEvent && toCachedJob(finishedBy(last.body, finalEvent, maxBytes))
}

/** Larger bodies are not kept while requests wait. */
const KEPT_BYTES = 65_536

/** What to keep of a job as it was seen: its brief form if it is large. */
export function lastSeen(job: CachedJob | undefined): CachedJob | undefined {
  return job && job.bytes > KEPT_BYTES ? briefJob(job) : job
}

/** Whether a wait ends with this job. `etag`: what a wait for a change compares with. `job`: `undefined` if missing. */
export function isDone(until: Until, etag: string | undefined, job: CachedJob | undefined): boolean {
  if (!job || job.finished) return true
  return until === 'change' && !isNotModified(etag, job.etag)
}
