/**
 * An entry of the status cache, and the rules for keeping and serving it, as functions of plain values. An entry is
 *
 *   fresh     its feed is live and has had no gap since the read: served until its TTL ends
 *   degraded  its queue has no live feed: served until DEGRADED_TTL_MS after the read
 *   detached  its feed was closed or had a gap: not served
 *   expired   its time is over: after CACHE_STALE_KEEP it is deleted
 *
 * While Redis fails, an entry whose TTL ended less than CACHE_STALE_KEEP ago is served as `stale`, unless its feed had a gap.
 */
import type { Feed } from '../../events/feed-registry.ts'
import { bytesOfPart } from '../../json/json-writer.ts'
import { isAfter } from '../../redis/streams/stream-position.ts'
import { toBrief } from './answer-size.ts'
import type { Reading } from './job-reader.ts'
import { type JobResource, type Representation, represent } from './job-resource.ts'

export interface CachedJob extends Representation {
  /** Of the body in UTF-8. */
  bytes: number
  /** Without long fields; `undefined`: the job has none. */
  brief: Representation | undefined
  finished: boolean
  /** 0: unknown. */
  createdAtMs: number
  /** 0: the job is not delayed. */
  delayedUntilMs: number
}

export interface CacheEntry {
  /** `undefined`: the job does not exist. */
  job: CachedJob | undefined
  /** Position in the queue's event stream at which the job was read. */
  position: string
  /** `undefined`: the queue is not followed, so no event reports a change of the job. */
  feed: Feed | undefined
  /** The epoch of the feed at the read. */
  epoch: number
  filledAtMs: number
  ttlMs: number
  /** A client has asked for it since the read. */
  used: boolean
  /** Fields were left out for the sake of one request only: it must not be served to another. */
  isCut: boolean
}

export interface Found {
  /** `undefined`: the job does not exist. */
  job: CachedJob | undefined
  /** `bypass`: read from Redis on request. `stale`: Redis fails, and this is the last that was known. */
  source: 'hit' | 'miss' | 'stale' | 'bypass'
  /** Position in the queue's event stream: `job` reflects every event up to it and no later one. */
  position: string
  /** How long it may still be served from memory, ms; below 0 when stale. */
  ttlMs: number
  /** Events do not arrive, so that it may be up to DEGRADED_TTL_MS old. */
  degraded: boolean
}

export interface Ttls {
  finishedMs: number
  unfinishedMs: number
  missingMs: number
}

const DEGRADED_TTL_MS = 1_000
/** For a missing job of a queue that is not followed: no event would report that another replica has stored the job. */
const UNFOLLOWED_MISSING_TTL_MS = 100

export function createEntry(
  { job, position, isCut = false }: Reading,
  feed: Feed | undefined,
  ttls: Ttls,
  nowMs: number,
): CacheEntry {
  // No spread: every entry has the same hidden class, of the smallest size.
  return {
    job: job && toCachedJob(job),
    position,
    feed,
    epoch: feed?.epoch ?? 0,
    filledAtMs: nowMs,
    ttlMs: ttlOf(job, feed !== undefined, ttls),
    used: false,
    isCut,
  }
}

export function toCachedJob(resource: JobResource): CachedJob {
  const { body, etag } = represent(resource)
  const brief = toBrief(resource)
  return {
    body,
    etag,
    bytes: bytesOfPart(body),
    brief: brief === resource ? undefined : represent(brief),
    finished: isFinished(resource),
    createdAtMs: resource.createdAt === null ? 0 : Date.parse(resource.createdAt),
    delayedUntilMs: resource.delayedUntil === null ? 0 : Date.parse(resource.delayedUntil),
  }
}

/** The job in its brief form, which is never large. */
export function briefJob(job: CachedJob): CachedJob {
  const { brief } = job
  if (brief === undefined) return job
  return { ...job, ...brief, bytes: bytesOfPart(brief.body), brief: undefined }
}

/** Until when the entry is served from memory, in the time of performance.now(); negative infinity if it must not be. */
export function freshUntil({ feed, epoch, filledAtMs, ttlMs }: CacheEntry): number {
  if (feed?.isLive && !feed.isClosed && feed.epoch === epoch) return filledAtMs + ttlMs
  if (feed && (feed.isClosed || feed.epoch !== epoch)) return Number.NEGATIVE_INFINITY
  return filledAtMs + Math.min(ttlMs, DEGRADED_TTL_MS)
}

export function foundIn(entry: CacheEntry, source: Found['source'], nowMs: number): Found {
  const ttlMs = Math.max(0, freshUntil(entry) - nowMs)
  const degraded = !(entry.feed?.isLive ?? false)
  return { job: entry.job, source, position: entry.position, ttlMs, degraded }
}

/** The entry as served while Redis fails. `undefined` for a missing job, and for one that may have changed in a gap. */
export function staleIn(entry: CacheEntry, staleKeepMs: number, nowMs: number): Found | undefined {
  if (!entry.job) return undefined
  if (entry.feed && entry.feed.epoch !== entry.epoch) return undefined
  const ttlMs = entry.filledAtMs + entry.ttlMs - nowMs
  if (-ttlMs > staleKeepMs) return undefined
  return { job: entry.job, source: 'stale', position: entry.position, ttlMs, degraded: true }
}

/** Whether the entry does not reflect this event, and must therefore be removed. */
export function isInvalidatedBy(eventId: string, { position }: CacheEntry): boolean {
  return isAfter(eventId, position)
}

/**
 * Whether this process received every event between the read and now. `before` and `epochBefore` are the feed of the
 * queue, and its epoch, when the read began.
 */
export function hasReceivedAll(
  { feed, position }: Pick<CacheEntry, 'feed' | 'position'>,
  before: Feed | undefined,
  epochBefore: number | undefined,
): boolean {
  if (before) return feed === before && feed.epoch === epochBefore
  // Another request may have followed the queue in the meantime, from a later position.
  return !feed || !isAfter(feed.position, position)
}

function ttlOf(job: JobResource | undefined, isFollowed: boolean, ttls: Ttls): number {
  if (job) return isFinished(job) ? ttls.finishedMs : ttls.unfinishedMs
  return isFollowed ? ttls.missingMs : Math.min(ttls.missingMs, UNFOLLOWED_MISSING_TTL_MS)
}

function isFinished({ state }: JobResource): boolean {
  return state === 'completed' || state === 'failed'
}
