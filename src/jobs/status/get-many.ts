/** Many jobs at once: those in memory from there, the others in one write to Redis. */
import { hash } from 'node:crypto'
import type { JobRef } from '../job-id.ts'
import type { Include } from './job-reader.ts'
import type { Found, StatusCache } from './status-cache.ts'

export interface ManyResult {
  /** JSON text of all, in the order asked for; `null` for one that does not exist. */
  body: string
  /** Strong: equal as long as nothing of any of them changes. */
  etag: string
  found: Found[]
}

/** `undefined`: an id that cannot be one. Rejects when Redis cannot be asked for one that is not in memory. */
export type GetMany = (refs: (JobRef | undefined)[], include: Include, bypass: boolean) => Promise<ManyResult>

export function createGetMany(statusCache: StatusCache): GetMany {
  return async (refs, include, bypass) => {
    const nowMs = Date.now()
    const find = (ref: JobRef | undefined) => {
      if (!ref) return undefined
      const known = bypass ? undefined : statusCache.peek(`${ref.queue}:${ref.key}`, include, nowMs)
      return known ?? statusCache.fetch(ref, include, { bypass })
    }
    const all = await Promise.all(refs.map(find))
    const found = all.filter((one) => one !== undefined)
    const bodies = all.map((one) => one?.job?.body ?? 'null')
    const tags = all.map((one) => one?.job?.etag ?? '-')
    return {
      body: `{"jobs":[${bodies.join(',')}]}`,
      etag: `"${hash('sha1', tags.join(), 'base64url')}"`,
      found,
    }
  }
}
