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
import type { Allowance, Include, JobReader, Reading } from './job-reader.ts'
import { createSingleFlight, type Flight } from './single-flight.ts'

export interface StatusCache {
  /** Returns a fresh entry from memory, without a promise. `id` is `queue:key`. */
  peek(id: string, include: Include, nowMs: number): Found | undefined
  /**
   * Reads from Redis; requests for one id share a read unless `bypass` is set. Rejects when Redis fails and no stale
   * entry is left.
   */
  fetch(ref: JobRef, include: Include, options?: { bypass?: boolean }): Promise<Found>
  /** Like `fetch`, but resolves with `undefined` for a job that is too large for a small reply of Redis. */
  fetchSmall(ref: JobRef, include: Include, options?: { bypass?: boolean }): Promise<Found | undefined>
  /**
   * Reads jobs of one queue within the allowance of a request (see `JobReader.readMany`). A job of which fields were left
   * out for that reason is not kept.
   */
  fetchMany(
    queue: string,
    refs: JobRef[],
    include: Include,
    options: { allowance: Allowance; bypass: boolean },
  ): Promise<Found[]>
  /** MAX_ANSWER_BYTES. */
  readonly maxAnswerBytes: number
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
  reader: Pick<JobReader, 'read' | 'readSmall' | 'readMany'>,
  events: Pick<QueueEvents, 'feed' | 'follow' | 'onAnyEvent'>,
  now: () => number = () => performance.now(),
): StatusCache {
  const ttls = ttlsOf(config)
  const enabled = ttls.unfinishedMs + ttls.finishedMs + ttls.missingMs > 0
  const entries = new LRUCache<string, CacheEntry>({
    maxSize: config.CACHE_MAX_BYTES,
    sizeCalculation: sizeOf,
  })
  const reads = createSingleFlight<CacheEntry | undefined>()
  let hits = 0
  let misses = 0
  const sweep = () => removeExpired(entries, now() - config.CACHE_STALE_KEEP)
  const sweeper = enabled ? setInterval(sweep, config.CACHE_SWEEP_INTERVAL) : undefined
  // A gap needs no listener: an entry of an earlier epoch is not served.
  if (enabled) events.onAnyEvent({ onEvent, onGap() {} })

  /** `read` resolves with `undefined` for a job that it could not read. */
  function fill(
    cacheKey: string,
    queue: string,
    read: () => Promise<Reading | undefined>,
  ): Flight<CacheEntry | undefined> {
    const before = events.feed(queue)
    const epochBefore = before?.epoch
    const complete = (reading: Reading | undefined, flight: Flight<CacheEntry | undefined>) => {
      if (!reading) return undefined
      const { job, position } = reading
      // Clients may ask for any name: a queue that never had a job is not followed.
      const exists = job !== undefined || position !== STREAM_START
      const feed = exists ? events.follow(queue, position) : events.feed(queue)
      const entry = createEntry(reading, feed, ttls, now())
      const isCurrent = flight.isUpToDate(position) && hasReceivedAll(entry, before, epochBefore)
      if (isCurrent && entry.ttlMs > 0 && !entry.isCut) entries.set(cacheKey, entry)
      return entry
    }
    return reads.begin(cacheKey, read, complete)
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
    if (entry.used) fill(cacheKey, ref.queue, () => reader.read(ref, include)).promise.catch(() => {})
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
    const read = () => reader.read(ref, include)
    if (isUncacheable(include)) return uncached(await read(), bypass)
    const cacheKey = cacheKeyOf(`${ref.queue}:${ref.key}`, include)
    return orStale(cacheKey, async () => {
      // A bypass must not share a read that began before the request.
      for (let shared = bypass ? undefined : reads.joinable(cacheKey); shared; ) {
        const entry = await shared.promise
        if (entry && !entry.isCut) return foundIn(entry, 'miss', now())
        // That read was for a request which bounds its size.
        shared = reads.joinable(cacheKey)
      }
      const entry = await fill(cacheKey, ref.queue, read).promise
      return foundIn(entry!, bypass ? 'bypass' : 'miss', now())
    })
  }

  async function fetchSmall(ref: JobRef, include: Include, { bypass = false } = {}) {
    const read = () => reader.readSmall(ref, include)
    if (isUncacheable(include)) {
      const reading = await read()
      return reading && uncached(reading, bypass)
    }
    const cacheKey = cacheKeyOf(`${ref.queue}:${ref.key}`, include)
    return orStale(cacheKey, async () => {
      const flight = (bypass ? undefined : reads.joinable(cacheKey)) ?? fill(cacheKey, ref.queue, read)
      const entry = await flight.promise
      return entry && !entry.isCut ? foundIn(entry, bypass ? 'bypass' : 'miss', now()) : undefined
    })
  }

  async function fetchMany(
    queue: string,
    refs: JobRef[],
    include: Include,
    { allowance, bypass }: { allowance: Allowance; bypass: boolean },
  ): Promise<Found[]> {
    const readings = reader.readMany(queue, refs, include, allowance)
    if (isUncacheable(include)) return (await readings).map((reading) => uncached(reading, bypass))
    return Promise.all(
      refs.map(async ({ key }, index) => {
        const cacheKey = cacheKeyOf(`${queue}:${key}`, include)
        const read = () => readings.then((all) => all[index])
        return orStale(cacheKey, async () => {
          const entry = await fill(cacheKey, queue, read).promise
          return foundIn(entry!, bypass ? 'bypass' : 'miss', now())
        })
      }),
    )
  }

  /** No event announces a log line, so logs are always read. */
  function isUncacheable({ logs }: Include): boolean {
    return !enabled || logs
  }

  /** The last known status of a job that cannot be read. */
  async function orStale<F>(cacheKey: string, find: () => Promise<F>): Promise<F | Found> {
    try {
      return await find()
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
  return {
    peek,
    fetch,
    fetchSmall,
    fetchMany,
    maxAnswerBytes: config.MAX_ANSWER_BYTES,
    forget,
    stats,
    close: () => clearInterval(sweeper),
  }
}

function uncached({ job, position }: Reading, bypass: boolean): Found {
  const source = bypass ? 'bypass' : 'miss'
  return { job: job && toCachedJob(job), source, position, ttlMs: 0, degraded: false }
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
  return (
    ENTRY_OVERHEAD_BYTES + cacheKey.length + 2 * ((job?.body.length ?? 0) + (job?.brief?.body.length ?? 0))
  )
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
