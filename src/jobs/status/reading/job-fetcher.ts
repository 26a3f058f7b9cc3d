/**
 * Reads jobs for the status cache and keeps what it has read, unless a later event or write concerned the job. Requests for
 * one job share a read (single-flight.ts). While Redis fails, an expired entry is the answer.
 */
import type { LRUCache } from 'lru-cache'
import type { Config } from '../../../config/schema.ts'
import { SluiceError } from '../../../errors.ts'
import type { QueueEvents } from '../../../events/queue-events.ts'
import { STREAM_START } from '../../../redis/streams/stream-position.ts'
import type { JobRef } from '../../job-id.ts'
import {
  type CacheEntry,
  createEntry,
  type Found,
  foundIn,
  hasReceivedAll,
  staleIn,
  type Ttls,
  toCachedJob,
} from '../cache-entry.ts'
import type { Allowance, Include, JobReader, Reading } from '../job-reader.ts'
import type { Flight, SingleFlight } from './single-flight.ts'

export interface FetcherDeps {
  config: Config
  ttls: Ttls
  enabled: boolean
  entries: LRUCache<string, CacheEntry>
  reads: SingleFlight<CacheEntry | undefined>
  reader: Pick<JobReader, 'read' | 'readSmall' | 'readMany'>
  events: Pick<QueueEvents, 'feed' | 'follow'>
  now(): number
}

/** The functions of the cache that read Redis, and keep what they have read. */
export function createFetcher({ config, ttls, enabled, entries, reads, reader, events, now }: FetcherDeps) {
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

  async function fetch(ref: JobRef, include: Include, { bypass = false } = {}): Promise<Found> {
    const read = () => reader.read(ref, include)
    if (isUncacheable(include)) return uncached(await read(), bypass)
    const cacheKey = cacheKeyOf(`${ref.queue}:${ref.key}`, include)
    return orStale(lastKnown(cacheKey), async () => {
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
    return orStale(lastKnown(cacheKey), async () => {
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
        return orStale(lastKnown(cacheKey), async () => {
          const entry = await fill(cacheKey, queue, read).promise
          return foundIn(entry!, bypass ? 'bypass' : 'miss', now())
        })
      }),
    )
  }

  const lastKnown = (cacheKey: string) => () => {
    const entry = entries.peek(cacheKey)
    return entry && staleIn(entry, config.CACHE_STALE_KEEP, now())
  }

  /** No event announces a log line, so logs are always read. */
  function isUncacheable({ logs }: Include): boolean {
    return !enabled || logs
  }

  return { fill, fetch, fetchSmall, fetchMany }
}

/** No id starts with a colon, so no id can equal the key of another's variant. */
const DATA_VARIANT = ':'

export function cacheKeyOf(id: string, include: Include): string {
  return include.data ? DATA_VARIANT + id : id
}

function uncached({ job, position }: Reading, bypass: boolean): Found {
  const source = bypass ? 'bypass' : 'miss'
  return { job: job && toCachedJob(job), source, position, ttlMs: 0, degraded: false }
}

/** The last known status of a job that cannot be read. */
async function orStale<F>(lastKnown: () => Found | undefined, find: () => Promise<F>): Promise<F | Found> {
  try {
    return await find()
  } catch (error) {
    const stale = error instanceof SluiceError ? lastKnown() : undefined
    if (!stale) throw error
    return stale
  }
}
