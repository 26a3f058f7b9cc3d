/** Keeps the summary in memory. Probes that arrive together share one computation. */
import type { HealthStatus } from './health-responses.ts'

/** A failure is served for no longer, whatever the TTL: a probe should see the recovery. */
const FAILURE_TTL_MS = 1_000

export function isFresh(ageMs: number, status: HealthStatus, ttlMs: number): boolean {
  return ageMs < (status === 'fail' ? Math.min(ttlMs, FAILURE_TTL_MS) : ttlMs)
}

export interface SummaryCache<Summary> {
  /** The summary, and whether it was served from memory. */
  read(ttlMs: number): Promise<{ summary: Summary; isCached: boolean }>
  /** The next read computes a new one. */
  clear(): void
}

export function createSummaryCache<Summary extends { status: HealthStatus }>(
  compute: () => Promise<Summary>,
  now: () => number = Date.now,
): SummaryCache<Summary> {
  let cached: { summary: Summary; computedAtMs: number } | undefined
  let computing: Promise<Summary> | undefined

  async function refresh(): Promise<Summary> {
    const summary = await compute()
    cached = { summary, computedAtMs: now() }
    return summary
  }

  return {
    async read(ttlMs) {
      if (cached && isFresh(now() - cached.computedAtMs, cached.summary.status, ttlMs))
        return { summary: cached.summary, isCached: true }
      computing ??= refresh().finally(() => {
        computing = undefined
      })
      return { summary: await computing, isCached: false }
    },
    clear() {
      cached = undefined
    },
  }
}
