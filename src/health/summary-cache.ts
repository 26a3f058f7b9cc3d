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
  /** The next read computes a new one, also if one is being computed. */
  clear(): void
}

export function createSummaryCache<Summary extends { status: HealthStatus }>(
  compute: () => Promise<Summary>,
  now: () => number = Date.now,
): SummaryCache<Summary> {
  let cached: { summary: Summary; computedAtMs: number } | undefined
  let computing: Promise<Summary> | undefined
  /** Grows with each `clear`. */
  let epoch = 0

  async function refresh(): Promise<Summary> {
    const startedIn = epoch
    const summary = await compute()
    // Part of it may have been measured before what `clear` reported.
    if (epoch === startedIn) cached = { summary, computedAtMs: now() }
    return summary
  }

  function share(): Promise<Summary> {
    const sharing = refresh().finally(() => {
      if (computing === sharing) computing = undefined
    })
    return sharing
  }

  return {
    async read(ttlMs) {
      if (cached && isFresh(now() - cached.computedAtMs, cached.summary.status, ttlMs))
        return { summary: cached.summary, isCached: true }
      computing ??= share()
      return { summary: await computing, isCached: false }
    },
    clear() {
      epoch++
      cached = undefined
      computing = undefined
    },
  }
}
