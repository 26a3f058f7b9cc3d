/**
 * The finished answer by job id: bytes, ETag, and until when it may be served. A hit is a lookup and a write.
 *
 * Reads of one id that miss at the same time share one command (single flight). A read that was under way when the job
 * was written here is answered but not kept: `forget` cancels its ticket. What has expired stays for a while, to be
 * served as stale while Redis is away.
 */
import { LRUCache } from 'lru-cache'
import type { Config } from '../config.ts'
import { SluiceError } from '../errors.ts'
import type { JobRef } from './id.ts'
import type { Include, JobReader } from './job-reader.ts'
import { type JobResource, type Representation, represent } from './job-resource.ts'

export interface CachedJob extends Representation {
  finished: boolean
  createdAtMs: number
  delayedUntilMs: number
  /** Until when it is fresh, ms since 1970. */
  freshUntilMs: number
}

export interface Found {
  /** `undefined`: there is no such job. */
  job: CachedJob | undefined
  /** `stale`: Redis cannot be asked now, and this is the last that was known. `bypass`: read through on request. */
  source: 'hit' | 'miss' | 'stale' | 'bypass'
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

/** `job: undefined` is a remembered miss. */
interface Entry {
  job: CachedJob | undefined
  freshUntilMs: number
}

interface Flight {
  promise: Promise<Entry>
  cancelled: boolean
}

/** What an entry costs beside its text: the key, the objects, the slots of the cache. */
const ENTRY_OVERHEAD_BYTES = 400

export function createStatusCache(
  config: Config,
  reader: JobReader,
  now: () => number = Date.now,
): StatusCache {
  const { CACHE_TTL_SHORT, CACHE_TTL_LONG, CACHE_TTL_MISSING, CACHE_STALE_KEEP } = config
  const enabled = CACHE_TTL_SHORT + CACHE_TTL_LONG + CACHE_TTL_MISSING > 0
  const entries = new LRUCache<string, Entry>({
    maxSize: config.CACHE_MAX_BYTES,
    sizeCalculation: ({ job }, cacheKey) =>
      ENTRY_OVERHEAD_BYTES + cacheKey.length + 2 * (job?.body.length ?? 0),
  })
  const flights = new Map<string, Flight>()
  let hits = 0
  let misses = 0
  const sweeper = enabled ? setInterval(sweep, config.CACHE_SWEEP_INTERVAL) : undefined

  function sweep(): void {
    const before = now() - CACHE_STALE_KEEP
    for (const [cacheKey, entry] of entries.entries()) {
      if (entry.freshUntilMs < before) entries.delete(cacheKey)
    }
  }

  function toEntry(resource: JobResource | undefined): Entry {
    if (!resource) return { job: undefined, freshUntilMs: now() + CACHE_TTL_MISSING }
    const finished = resource.state === 'completed' || resource.state === 'failed'
    const freshUntilMs = now() + (finished ? CACHE_TTL_LONG : CACHE_TTL_SHORT)
    const job: CachedJob = {
      ...represent(resource),
      finished,
      createdAtMs: Date.parse(resource.createdAt),
      delayedUntilMs: resource.delayedUntil === null ? 0 : Date.parse(resource.delayedUntil),
      freshUntilMs,
    }
    return { job, freshUntilMs }
  }

  function fly(cacheKey: string, ref: JobRef, include: Include): Flight {
    const flight: Flight = {
      cancelled: false,
      promise: reader
        .read(ref, include)
        .then((resource) => {
          const entry = toEntry(resource)
          if (!flight.cancelled && entry.freshUntilMs > now()) entries.set(cacheKey, entry)
          return entry
        })
        .finally(() => {
          if (flights.get(cacheKey) === flight) flights.delete(cacheKey)
        }),
    }
    flights.set(cacheKey, flight)
    return flight
  }

  /** Only while Redis is at fault: a job that is known to be gone is not brought back. */
  function staleAnswer(cacheKey: string, error: unknown): Found {
    const entry = entries.peek(cacheKey)
    if (!entry?.job || !(error instanceof SluiceError) || now() - entry.freshUntilMs > CACHE_STALE_KEEP)
      throw error
    return { job: entry.job, source: 'stale' }
  }

  return {
    peek(id, include, nowMs) {
      const entry = enabled && !include.logs ? entries.get(cacheKeyOf(id, include)) : undefined
      if (!entry || entry.freshUntilMs <= nowMs) {
        misses++
        return undefined
      }
      hits++
      return { job: entry.job, source: 'hit' }
    },
    async fetch(ref, include, { bypass = false } = {}) {
      const source = bypass ? 'bypass' : 'miss'
      // Nothing tells when a log line is added, and with the cache off nothing is shared.
      if (!enabled || include.logs) return { job: toEntry(await reader.read(ref, include)).job, source }
      const cacheKey = cacheKeyOf(`${ref.queue}:${ref.key}`, include)
      // A read that is to be fresh may not join one that began before it was asked for.
      const flight = (bypass ? undefined : flights.get(cacheKey)) ?? fly(cacheKey, ref, include)
      try {
        return { job: (await flight.promise).job, source }
      } catch (error) {
        return staleAnswer(cacheKey, error)
      }
    },
    forget(queue, key) {
      const id = `${queue}:${key}`
      for (const cacheKey of [id, id + DATA_VARIANT]) {
        entries.delete(cacheKey)
        const flight = flights.get(cacheKey)
        if (!flight) continue
        flight.cancelled = true
        flights.delete(cacheKey)
      }
    },
    stats() {
      const nowMs = now()
      let validEntries = 0
      for (const entry of entries.values()) if (entry.freshUntilMs > nowMs) validEntries++
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

/** No id holds a space, so none can spell another's variant. */
const DATA_VARIANT = ' data'

function cacheKeyOf(id: string, include: Include): string {
  return include.data ? id + DATA_VARIANT : id
}
