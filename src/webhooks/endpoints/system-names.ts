/**
 * Asks the operating system for names that neither the hosts file nor DNS knows. It may take half a minute on one of the
 * threads that file access shares, so one name is asked at a time, and one that took long is not asked again for a while.
 */
import type { LookupAddress } from 'node:dns'
import { LRUCache } from 'lru-cache'
import { NotFoundError, NotResolvedError } from './dns-query.ts'

export type LookupAll = (name: string) => Promise<LookupAddress[]>

export interface SystemNames {
  /** Rejects with NotFoundError, or with NotResolvedError once `signal` is aborted before it is the name's turn. */
  find(name: string, signal: AbortSignal): Promise<LookupAddress[]>
}

const SLOW_MS = 2_000
const SLOW_NAMES_MAX = 1_000
const SLOW_TTL_MS = 300_000

export function createSystemNames(ask: LookupAll): SystemNames {
  const slowNames = new LRUCache<string, true>({ max: SLOW_NAMES_MAX, ttl: SLOW_TTL_MS })
  let previous: Promise<unknown> = Promise.resolve()

  async function askOne(name: string, signal: AbortSignal): Promise<LookupAddress[]> {
    if (signal.aborted || slowNames.has(name)) throw new NotResolvedError()
    const startedAt = performance.now()
    try {
      return await ask(name)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      throw code === 'EAI_AGAIN' ? new NotResolvedError() : new NotFoundError()
    } finally {
      if (performance.now() - startedAt >= SLOW_MS) slowNames.set(name, true)
    }
  }

  return {
    find(name, signal) {
      const found = previous.then(() => askOne(name, signal))
      previous = found.catch(() => {})
      return found
    },
  }
}
