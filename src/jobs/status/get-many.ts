/** Gets several jobs at once: cached ones from memory, the others in one write to Redis. */
import { hash } from 'node:crypto'
import type { JobRef } from '../job-id.ts'
import type { Found } from './cache-entry.ts'
import type { Include } from './job-reader.ts'
import type { StatusCache } from './status-cache.ts'

export interface ManyJobs {
  /** JSON text of the jobs in the order of the ids; `null` for a job that does not exist. */
  body: string
  /** Strong: it changes when any of the jobs changes. */
  etag: string
  /** Of every valid id. */
  found: Found[]
}

/**
 * `undefined` in `refs` stands for an id that cannot exist. `bypass`: read from Redis even if cached. Rejects with a
 * SluiceError when Redis fails for a job that is not cached.
 */
export type GetMany = (refs: (JobRef | undefined)[], include: Include, bypass: boolean) => Promise<ManyJobs>

export function createGetMany(statusCache: StatusCache): GetMany {
  return async function getMany(refs, include, bypass) {
    const nowMs = performance.now()
    const get = (ref: JobRef | undefined) => {
      if (!ref) return undefined
      const cached = bypass ? undefined : statusCache.peek(`${ref.queue}:${ref.key}`, include, nowMs)
      return cached ?? statusCache.fetch(ref, include, { bypass })
    }
    const all = await Promise.all(refs.map(get))
    const bodies = all.map((one) => one?.job?.body ?? 'null')
    const tags = all.map((one) => one?.job?.etag ?? '-')
    return {
      body: `{"jobs":[${bodies.join(',')}]}`,
      etag: `"${hash('sha1', tags.join(), 'base64url')}"`,
      found: all.filter((one) => one !== undefined),
    }
  }
}
