/**
 * Rendered jobs by id: bytes, ETag, and how long they may be served. A hit is one lookup and no promise.
 *
 * An entry was read at a position in its queue's event stream. A later event about its job removes it, and a job that a
 * client has asked for is then read again at once. TTLs cover the changes that BullMQ does not announce.
 * cache-entry.ts has the states of an entry, reading/single-flight.ts those of a read under way.
 */
import { LRUCache } from 'lru-cache'
import type { Config } from '../../config/schema.ts'
import type { QueueEvent, QueueEvents } from '../../events/queue-events.ts'
import type { JsonPart } from '../../json/json-writer.ts'
import type { JobRef } from '../job-id.ts'
import {
  type CacheEntry,
  type Found,
  foundIn,
  freshUntil,
  isInvalidatedBy,
  type Ttls,
} from './cache-entry.ts'
import type { Allowance, Include, JobReader } from './job-reader.ts'
import { cacheKeyOf, createFetcher } from './reading/job-fetcher.ts'
import { createSingleFlight } from './reading/single-flight.ts'

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
  const { fill, fetch, fetchSmall, fetchMany } = createFetcher({
    config,
    ttls,
    enabled,
    entries,
    reads,
    reader,
    events,
    now,
  })
  let hits = 0
  let misses = 0
  const sweep = () => removeExpired(entries, now() - config.CACHE_STALE_KEEP)
  const sweeper = enabled ? setInterval(sweep, config.CACHE_SWEEP_INTERVAL) : undefined
  // A gap needs no listener: an entry of an earlier epoch is not served.
  if (enabled) events.onAnyEvent({ onEvent, onGap() {} })

  function onEvent({ queue, key, id: eventId }: QueueEvent): void {
    if (key === undefined) return
    const id = `${queue}:${key}`
    invalidate(id, { queue, key }, PLAIN, eventId)
    invalidate(cacheKeyOf(id, WITH_DATA), { queue, key }, WITH_DATA, eventId)
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

  function forget(queue: string, key: string): void {
    const id = `${queue}:${key}`
    for (const cacheKey of [id, cacheKeyOf(id, WITH_DATA)]) {
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

function removeExpired(entries: LRUCache<string, CacheEntry>, beforeMs: number): void {
  for (const [cacheKey, entry] of entries.entries()) {
    if (freshUntil(entry) < beforeMs) entries.delete(cacheKey)
  }
}

function ttlsOf({ CACHE_TTL_LONG, CACHE_TTL_SHORT, CACHE_TTL_MISSING }: Config): Ttls {
  return { finishedMs: CACHE_TTL_LONG, unfinishedMs: CACHE_TTL_SHORT, missingMs: CACHE_TTL_MISSING }
}

function sizeOf({ job }: CacheEntry, cacheKey: string): number {
  return ENTRY_OVERHEAD_BYTES + cacheKey.length + memoryOf(job?.body) + memoryOf(job?.brief?.body)
}

/** A string may take two bytes for each unit. */
function memoryOf(body: JsonPart | undefined): number {
  if (body === undefined) return 0
  return typeof body === 'string' ? 2 * body.length : body.length
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
