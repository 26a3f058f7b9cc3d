/** Keeps the result of a check in memory. Requests that arrive together share one check, so a flood costs Redis next to nothing. */
import type { HealthStatus } from './health-responses.ts'

/** A failure is served for no longer, whatever the TTL: a probe should see the recovery. */
const FAILURE_TTL_MS = 1_000

export function isFresh(ageMs: number, status: HealthStatus, ttlMs: number): boolean {
  return ageMs < (status === 'fail' ? Math.min(ttlMs, FAILURE_TTL_MS) : ttlMs)
}

export interface ResultCache<Result> {
  /** The result, and whether it was served from memory. With a TTL of 0 only a check that is running is shared. */
  read(ttlMs: number): Promise<{ result: Result; isCached: boolean }>
  /** The next read begins a new check, also if one is running. */
  clear(): void
}

export function createResultCache<Result extends { status: HealthStatus }>(
  check: () => Promise<Result>,
  now: () => number = () => performance.now(),
): ResultCache<Result> {
  let cached: { result: Result; checkedAtMs: number } | undefined
  let running: Promise<Result> | undefined
  /** Grows with each `clear`. */
  let epoch = 0

  async function refresh(): Promise<Result> {
    const startedIn = epoch
    const result = await check()
    // Part of it may have been measured before what `clear` reported.
    if (epoch === startedIn) cached = { result, checkedAtMs: now() }
    return result
  }

  function share(): Promise<Result> {
    const sharing = refresh().finally(() => {
      if (running === sharing) running = undefined
    })
    return sharing
  }

  return {
    async read(ttlMs) {
      if (cached && isFresh(now() - cached.checkedAtMs, cached.result.status, ttlMs))
        return { result: cached.result, isCached: true }
      running ??= share()
      return { result: await running, isCached: false }
    },
    clear() {
      epoch++
      cached = undefined
      running = undefined
    },
  }
}
