/**
 * The finished answer by job id: bytes, ETag, and how far it may be trusted. A hit is a lookup and a write.
 *
 * An answer was read at a place in its queue's event stream (job-reader.ts). It holds until a later event speaks of its
 * job: then it is thrown out, and read again at once if anybody had asked for it. While events are not heard, nothing
 * is served for longer than DEGRADED_TTL_MS. TTLs are the net below, for what BullMQ announces to nobody.
 *
 * Reads of one id that miss at the same time share one look (flights.ts). One that was under way when its job
 * changed is answered to those who had asked before, and is kept only if it was read after the change. What has expired
 * stays for a while, to be served as stale while Redis is away.
 */
import { LRUCache } from 'lru-cache'
import type { Config } from '../../config/schema.ts'
import { SluiceError } from '../../errors.ts'
import type { Feed, QueueEvent, QueueEvents } from '../../events/queue-events.ts'
import { isAfter, STREAM_START } from '../../redis/streams/stream-position.ts'
import type { JobRef } from '../job-id.ts'
import type { Include, JobReader, Reading } from './job-reader.ts'
import { type JobResource, type Representation, represent } from './job-resource.ts'
import { createSingleFlight, type Flight } from './single-flight.ts'

export interface CachedJob extends Representation {
  finished: boolean
  createdAtMs: number
  delayedUntilMs: number
}

export interface Found {
  /** `undefined`: there is no such job. */
  job: CachedJob | undefined
  /** `stale`: Redis cannot be asked now, and this is the last that was known. `bypass`: read through on request. */
  source: 'hit' | 'miss' | 'stale' | 'bypass'
  /** The place in the queue's event stream: what an event up to here tells is in `job`, what a later one tells is not. */
  place: string
  /** For how long it would be served from memory, ms; below 0 when stale. */
  ttlMs: number
  /** Events are not heard, so that it may be DEGRADED_TTL_MS old. */
  degraded: boolean
}

export interface StatusCache {
  /** Answers at once, without a promise, when the answer is in memory and fresh. */
  peek(id: string, include: Include, nowMs: number): Found | undefined
  /** Reads through Redis, alone or with whoever reads the same id now. Rejects when neither Redis nor memory knows. */
  fetch(ref: JobRef, include: Include, options?: { bypass?: boolean }): Promise<Found>
  /** The job was written here: nothing read before now may be served again. */
  forget(queue: string, key: string): void
  stats(): CacheStats
  close(): void
}

/** The first four names are those of the field reports. */
export interface CacheStats {
  totalEntries: number
  validEntries: number
  expiredEntries: number
  /** Hits per lookup, 0 to 1. */
  hitRatio: number
  hits: number
  misses: number
  bytes: number
  maxBytes: number
  enabled: boolean
}

interface Entry {
  /** `undefined` is a remembered miss. */
  job: CachedJob | undefined
  place: string
  /** `undefined`: nobody tells when the job changes. */
  feed: Feed | undefined
  epoch: number
  filledAtMs: number
  ttlMs: number
  /** Somebody asked for it since it was read. */
  used: boolean
}

/** What an entry costs beside its text: the key, the objects, the slots of the cache. */
const ENTRY_OVERHEAD_BYTES = 400
const DEGRADED_TTL_MS = 1_000
/** A miss that no event would end: a job that another replica stores shows within this. */
const UNHEARD_MISS_TTL_MS = 100

export function createStatusCache(
  config: Config,
  reader: JobReader,
  events: Pick<QueueEvents, 'feed' | 'follow' | 'listen'>,
  now: () => number = Date.now,
): StatusCache {
  const { CACHE_TTL_SHORT, CACHE_TTL_LONG, CACHE_TTL_MISSING, CACHE_STALE_KEEP } = config
  const enabled = CACHE_TTL_SHORT + CACHE_TTL_LONG + CACHE_TTL_MISSING > 0
  const entries = new LRUCache<string, Entry>({
    maxSize: config.CACHE_MAX_BYTES,
    sizeCalculation: ({ job }, cacheKey) =>
      ENTRY_OVERHEAD_BYTES + cacheKey.length + 2 * (job?.body.length ?? 0),
  })
  const flights = createSingleFlight<Entry>()
  let hits = 0
  let misses = 0
  const sweeper = enabled ? setInterval(sweep, config.CACHE_SWEEP_INTERVAL) : undefined
  // Gaps need no listener: an entry of an earlier epoch is not served.
  if (enabled) events.listen({ onEvent, onGap() {} })

  function sweep(): void {
    const before = now() - CACHE_STALE_KEEP
    for (const [cacheKey, entry] of entries.entries()) {
      if (freshUntil(entry) < before) entries.delete(cacheKey)
    }
  }

  /** Ms since 1970; 0 when it may not be served at all. */
  function freshUntil({ feed, epoch, filledAtMs, ttlMs }: Entry): number {
    if (feed?.isLive && !feed.isClosed && feed.epoch === epoch) return filledAtMs + ttlMs
    if (feed && (feed.isClosed || feed.epoch !== epoch)) return 0
    return filledAtMs + Math.min(ttlMs, DEGRADED_TTL_MS)
  }

  function answer(entry: Entry, source: Found['source'], nowMs: number): Found {
    const ttlMs = Math.max(0, freshUntil(entry) - nowMs)
    return { job: entry.job, source, place: entry.place, ttlMs, degraded: !(entry.feed?.isLive ?? false) }
  }

  function toEntry(ref: JobRef, { job, place }: Reading): Entry {
    // Of a queue that never had a job, nothing is followed: anybody may ask for any name.
    const feed = job || place !== STREAM_START ? events.follow(ref.queue, place) : events.feed(ref.queue)
    const ttlMs = job
      ? isFinished(job)
        ? CACHE_TTL_LONG
        : CACHE_TTL_SHORT
      : Math.min(CACHE_TTL_MISSING, feed ? CACHE_TTL_MISSING : UNHEARD_MISS_TTL_MS)
    // Written out: an object that is spread together has a shape of its own, which is larger than the object.
    return {
      job: job && toCachedJob(job),
      place,
      feed,
      epoch: feed?.epoch ?? 0,
      filledAtMs: now(),
      ttlMs,
      used: false,
    }
  }

  function fly(cacheKey: string, ref: JobRef, include: Include): Flight<Entry> {
    const before = events.feed(ref.queue)
    const epoch = before?.epoch
    return flights.begin(
      cacheKey,
      () => reader.read(ref, include),
      (reading, flight) => {
        const entry = toEntry(ref, reading)
        const isSound = flight.isUpToDate(reading.place) && hasHeardAll(entry, before, epoch)
        if (isSound && entry.ttlMs > 0) entries.set(cacheKey, entry)
        return entry
      },
    )
  }

  /** Whether every event between the reading and now has been heard here. `before`: the feed when the read began. */
  function hasHeardAll({ feed, place }: Entry, before: Feed | undefined, epoch: number | undefined): boolean {
    if (before) return feed === before && feed.epoch === epoch
    // Somebody else may have begun to follow the queue meanwhile, at a place beyond this.
    return !feed || !isAfter(feed.position, place)
  }

  function onEvent({ queue, key, id: eventId }: QueueEvent): void {
    if (key === undefined) return
    const id = `${queue}:${key}`
    change(id, { queue, key }, PLAIN, eventId)
    change(id + DATA_VARIANT, { queue, key }, WITH_DATA, eventId)
  }

  function change(cacheKey: string, ref: JobRef, include: Include, eventId: string): void {
    flights.overtake(cacheKey, eventId)
    const entry = entries.peek(cacheKey)
    if (!entry || !isAfter(eventId, entry.place)) return
    entries.delete(cacheKey)
    // Those who poll for it find it in memory again; of one that nobody asks for, its events cost nothing.
    if (entry.used) fly(cacheKey, ref, include).promise.catch(() => {})
  }

  /** Only while Redis is at fault: a job that is known to be gone, or to have changed, is not brought back. */
  function staleAnswer(cacheKey: string, error: unknown): Found {
    const entry = entries.peek(cacheKey)
    const nowMs = now()
    if (!entry?.job || !(error instanceof SluiceError)) throw error
    if (entry.feed && entry.feed.epoch !== entry.epoch) throw error
    const freshUntilMs = entry.filledAtMs + entry.ttlMs
    if (nowMs - freshUntilMs > CACHE_STALE_KEEP) throw error
    return {
      job: entry.job,
      source: 'stale',
      place: entry.place,
      ttlMs: freshUntilMs - nowMs,
      degraded: true,
    }
  }

  return {
    peek(id, include, nowMs) {
      const entry = enabled && !include.logs ? entries.get(cacheKeyOf(id, include)) : undefined
      if (!entry || freshUntil(entry) <= nowMs) {
        misses++
        return undefined
      }
      hits++
      entry.used = true
      if (entry.feed) entry.feed.usedAtMs = nowMs
      return answer(entry, 'hit', nowMs)
    },
    async fetch(ref, include, { bypass = false } = {}) {
      const source = bypass ? 'bypass' : 'miss'
      // Nothing tells when a log line is added, and with the cache off nothing is shared.
      if (!enabled || include.logs) {
        const { job, place } = await reader.read(ref, include)
        return { job: job && toCachedJob(job), source, place, ttlMs: 0, degraded: false }
      }
      const cacheKey = cacheKeyOf(`${ref.queue}:${ref.key}`, include)
      // A read that is to be fresh may not join one that began before it was asked for.
      const flight = (bypass ? undefined : flights.joinable(cacheKey)) ?? fly(cacheKey, ref, include)
      try {
        return answer(await flight.promise, source, now())
      } catch (error) {
        return staleAnswer(cacheKey, error)
      }
    },
    forget(queue, key) {
      const id = `${queue}:${key}`
      for (const cacheKey of [id, id + DATA_VARIANT]) {
        entries.delete(cacheKey)
        flights.cancel(cacheKey)
      }
    },
    stats() {
      const nowMs = now()
      let validEntries = 0
      for (const entry of entries.values()) if (freshUntil(entry) > nowMs) validEntries++
      const lookups = hits + misses
      return {
        totalEntries: entries.size,
        validEntries,
        expiredEntries: entries.size - validEntries,
        hitRatio: lookups === 0 ? 0 : Math.round((hits / lookups) * 10_000) / 10_000,
        hits,
        misses,
        bytes: entries.calculatedSize,
        maxBytes: config.CACHE_MAX_BYTES,
        enabled,
      }
    },
    close() {
      clearInterval(sweeper)
    },
  }
}

const PLAIN: Include = { data: false, logs: false }
const WITH_DATA: Include = { data: true, logs: false }
/** No id holds a space, so none can spell another's variant. */
const DATA_VARIANT = ' data'

function cacheKeyOf(id: string, include: Include): string {
  return include.data ? id + DATA_VARIANT : id
}

function isFinished({ state }: JobResource): boolean {
  return state === 'completed' || state === 'failed'
}

export function toCachedJob(resource: JobResource): CachedJob {
  const { body, etag } = represent(resource)
  return {
    body,
    etag,
    finished: isFinished(resource),
    createdAtMs: Date.parse(resource.createdAt),
    delayedUntilMs: resource.delayedUntil === null ? 0 : Date.parse(resource.delayedUntil),
  }
}
