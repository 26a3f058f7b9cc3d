/** Drives the target `add-bulk`, which calls addBulk by itself: one request starts a run and returns its figures. */
import type { Driven, Load, Target } from '../../bench.ts'
import { percentilesOf } from '../work.ts'

export interface BulkRun {
  jobs: number
  isLarge: boolean
  callers: number
}

/** When the load names no duration but an amount of requests, as that of a quick run does. */
const QUICK_S = 1

export async function driveInProcess(target: Target, load: Load, run: BulkRun): Promise<Driven> {
  const query = new URLSearchParams({
    jobs: `${run.jobs}`,
    kind: run.isLarge ? 'order' : 'summary',
    callers: `${run.callers}`,
    seconds: `${load.duration ?? QUICK_S}`,
  })
  const response = await fetch(`${target.url}/add-bulk?${query}`)
  const { tookMs, seconds } = (await response.json()) as { tookMs: number[]; seconds: number }
  return { ...percentilesOf(tookMs), requests: tookMs.length, seconds, errors: 0 }
}
