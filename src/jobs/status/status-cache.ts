/**
 * Rendered jobs by id: bytes, ETag, and how long they may be served. A hit is one lookup and no promise.
 *
 * An entry was read at a position in its queue's event stream. A later event about its job removes it, and a job that a
 * client has asked for is then read again at once. TTLs cover the changes that BullMQ does not announce.
 * cache-entry.ts has the states of an entry, single-flight.ts those of a read under way.
 */
import { LRUCache } from 'lru-cache'
import type { Config } from '../../config/schema.ts'
import { SluiceError } from '../../errors.ts'
import type { QueueEvent, QueueEvents } from '../../events/queue-events.ts'
import { STREAM_START } from '../../redis/streams/stream-position.ts'
import type { JobRef } from '../job-id.ts'
import {
  type CacheEntry,
  createEntry,
  type Found,
  foundIn,
  freshUntil,
  hasReceivedAll,
  isInvalidatedBy,
  staleIn,
  type Ttls,
  toCachedJob,
} from './cache-entry.ts'
import type { Include, JobReader, Reading } from './job-reader.ts'
import { createSingleFlight, type Flight } from './single-flight.ts'

export interface StatusCache {
  /** Returns a fresh entry from memory, without a promise. `id` is `queue:key`. */
  peek(id: string, include: Include, nowMs: number): Found | undefined
  /**
   * Reads from Redis; requests for one id share a read unless `bypass` is set. Rejects when Redis fails and no stale
   * entry is left.
   */
  fetch(ref: JobRef, include: Include, options?: { bypass?: boolean }): Promise<Found>
  /** This process wrote the job: nothing read before now is served again. */
  forget(queue: string, key: string): void
  stats(): CacheStats
  close(): void
}

/** The first four names come from the reports that docs/benchmarks.md describes. */
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

/** The memory that an entry takes besides its text: the objects and the slots of the cache. */
const ENTRY_OVERHEAD_BYTES = 400

const PLAIN: Include = { data: false, logs: false }
const WITH_DATA: Include = { data: true, logs: false }
/** No id contains a space, so no id can equal the key of another's variant. */
const DATA_VARIANT = ' data'

export function createStatusCache(
  config: Config,
  reader: JobReader,
  events: Pick<QueueEvents, 'feed' | 'follow' | 'onAnyEvent'>,
  now: () => number = () => performance.now(),
): StatusCache {
  const ttls = ttlsOf(config)
  const enabled = ttls.unfinishedMs + ttls.finishedMs + ttls.missingMs > 0
  const entries = new LRUCache<string, CacheEntry>({
    maxSize: config.CACHE_MAX_BYTES,
    sizeCalculation: sizeOf,
  })
  const reads = createSingleFlight<CacheEntry>()
  let hits = 0
  let misses = 0
  const sweep = () => removeExpired(entries, now() - config.CACHE_STALE_KEEP)
  const sweeper = enabled ? setInterval(sweep, config.CACHE_SWEEP_INTERVAL) : undefined
  // A gap needs no listener: an entry of an earlier epoch is not served.
  if (enabled) events.onAnyEvent({ onEvent, onGap() {} })

  function fill(cacheKey: string, ref: JobRef, include: Include): Flight<CacheEntry> {
    const before = events.feed(ref.queue)
    const epochBefore = before?.epoch
    const complete = (reading: Reading, flight: Flight<CacheEntry>) => {
      const { job, position } = reading
      // Clients may ask for any name: a queue that never had a job is not followed.
      const exists = job !== undefined || position !== STREAM_START
      const feed = exists ? events.follow(ref.queue, position) : events.feed(ref.queue)
      const entry = createEntry(reading, feed, ttls, now())
      const isCurrent = flight.isUpToDate(position) && hasReceivedAll(entry, before, epochBefore)
      if (isCurrent && entry.ttlMs > 0) entries.set(cacheKey, entry)
      return entry
    }
    return reads.begin(cacheKey, () => reader.read(ref, include), complete)
  }

  function onEvent({ queue, key, id: eventId }: QueueEvent): void {
    if (key === undefined) return
    const id = `${queue}:${key}`
    invalidate(id, { queue, key }, PLAIN, eventId)
    invalidate(id + DATA_VARIANT, { queue, key }, WITH_DATA, eventId)
  }

  function invalidate(cacheKey: string, ref: JobRef, include: Include, eventId: string): void {
    reads.overtake(cacheKey, eventId)
    const entry = entries.peek(cacheKey)
    if (!entry || !isInvalidatedBy(eventId, entry)) return
    entries.delete(cacheKey)
    // Clients that poll for the job find it in memory again. Events of a job that no client asks for cost no read.
    if (entry.used) fill(cacheKey, ref, include).promise.catch(() => {})
  }

  function peek(id: string, include: Include, nowMs: number): Found | undefined {
    const entry = enabled && !include.logs ? entries.get(cacheKeyOf(id, include)) : undefined
    if (!entry || freshUntil(entry) <= nowMs) {
      misses++
      return undefined
    }
    hits++
    entry.used = true
    if (entry.feed) entry.feed.usedAtMs = nowMs
    return foundIn(entry, 'hit', nowMs)
  }

  async function fetch(ref: JobRef, include: Include, { bypass = false } = {}): Promise<Found> {
    const source = bypass ? 'bypass' : 'miss'
    // No event announces a log line, so logs are always read.
    if (!enabled || include.logs) {
      const { job, position } = await reader.read(ref, include)
      return { job: job && toCachedJob(job), source, position, ttlMs: 0, degraded: false }
    }
    const cacheKey = cacheKeyOf(`${ref.queue}:${ref.key}`, include)
    // A bypass must not share a read that began before the request.
    const flight = (bypass ? undefined : reads.joinable(cacheKey)) ?? fill(cacheKey, ref, include)
    try {
      return foundIn(await flight.promise, source, now())
    } catch (error) {
      const entry = error instanceof SluiceError ? entries.peek(cacheKey) : undefined
      const stale = entry && staleIn(entry, config.CACHE_STALE_KEEP, now())
      if (!stale) throw error
      return stale
    }
  }

  function forget(queue: string, key: string): void {
    const id = `${queue}:${key}`
    for (const cacheKey of [id, id + DATA_VARIANT]) {
      entries.delete(cacheKey)
      reads.cancel(cacheKey)
    }
  }

  const stats = () => statsOf(entries, { hits, misses, enabled }, now())
  return { peek, fetch, forget, stats, close: () => clearInterval(sweeper) }
}

function removeExpired(entries: LRUCache<string, CacheEntry>, beforeMs: number): void {
  for (const [cacheKey, entry] of entries.entries()) {
    if (freshUntil(entry) < beforeMs) entries.delete(cacheKey)
  }
}

function ttlsOf({ CACHE_TTL_LONG, CACHE_TTL_SHORT, CACHE_TTL_MISSING }: Config): Ttls {
  return { finishedMs: CACHE_TTL_LONG, unfinishedMs: CACHE_TTL_SHORT, missingMs: CACHE_TTL_MISSING }
}

function sizeOf({ job }: CacheEntry, cacheKey: string): number {
  return ENTRY_OVERHEAD_BYTES + cacheKey.length + 2 * (job?.body.length ?? 0)
}

function cacheKeyOf(id: string, include: Include): string {
  return include.data ? id + DATA_VARIANT : id
}

function statsOf(
  entries: LRUCache<string, CacheEntry>,
  counts: Pick<CacheStats, 'hits' | 'misses' | 'enabled'>,
  nowMs: number,
): CacheStats {
  const { hits, misses, enabled } = counts
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
    maxBytes: entries.maxSize,
    enabled,
  }
}
