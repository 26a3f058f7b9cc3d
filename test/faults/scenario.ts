/** What a scenario is: a fault that is really caused, and what must hold. Each comes with a run in which it must not. */
import { percentile } from './checker.ts'
import { createStage, type Entry, type Stage } from './stage.ts'

export interface Check {
  what: string
  measured: number
  atMost?: number
  atLeast?: number
  /** Some of what was counted, to be looked into when it must not be. */
  samples?: string[]
}

export interface Finding {
  checks: Check[]
  /** What was done, for the table: jobs, kills, … */
  counts: Record<string, number>
}

export interface Scale {
  entry: Entry
  /** CI: small numbers, and a machine that does other things at the same time. */
  isQuick: boolean
  /** Of the whole run, where it is not quick. */
  minutes: number
  /** Said while it goes on. */
  progress(text: string): void
}

export interface Scenario {
  id: string
  fault: string
  run(stage: Stage, scale: Scale): Promise<Finding>
  controls: Control[]
}

/** The same fault and the same checks, with something taken away that the promise rests on. */
export interface Control {
  what: string
  /** The beginning of the check that it must miss. */
  misses: string
  run(stage: Stage, scale: Scale): Promise<Finding>
}

/** How long something goes on: of a long run its share of the minutes. */
export function secondsOf({ isQuick, minutes }: Scale, quickS: number, share: number): number {
  return isQuick ? quickS : Math.max(quickS, minutes * 60 * share)
}

/**
 * Times against their bound: 99 % must keep it. On a machine that does other things at the same time it is the median, and
 * ten times the bound: what is left to see there is whether anybody waits for what he must not wait for.
 */
export function judgeTimes({ isQuick }: Scale, what: string, timesMs: number[], boundMs: number): Check {
  if (isQuick) return { what: `${what}, p50, ms`, measured: percentile(timesMs, 0.5), atMost: 10 * boundMs }
  return { what: `${what}, p99, ms`, measured: percentile(timesMs, 0.99), atMost: boundMs }
}

export function holds({ measured, atMost, atLeast }: Check): boolean {
  return (atMost === undefined || measured <= atMost) && (atLeast === undefined || measured >= atLeast)
}

export function sentence(check: Check): string {
  const { what, measured, atMost, atLeast } = check
  const bound = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`
  return `${what}: ${round(measured)} (${bound})`
}

export function round(value: number): number {
  return Math.abs(value) >= 100 ? Math.round(value) : Math.round(value * 100) / 100
}

export interface Played extends Finding {
  seconds: number
}

/** On a stage of its own; nobody may have ended by himself. */
export async function play(act: Scenario | Control, scale: Scale): Promise<Played> {
  // A machine that does other things makes the event loop lag, which is not what is tested.
  const stage = createStage(scale.entry, scale.isQuick ? { MAX_EVENT_LOOP_DELAY: '0' } : {})
  const began = performance.now()
  try {
    const finding = await act.run(stage, scale)
    const crashed = { what: 'processes that ended by themselves', measured: stage.crashes(), atMost: 0 }
    return {
      ...finding,
      checks: [...finding.checks, crashed],
      seconds: (performance.now() - began) / 1_000,
    }
  } finally {
    await stage.end()
  }
}

/** Whether a control has missed what it must miss. */
export function hasFailed({ misses }: Control, { checks }: Finding): boolean {
  const check = checks.find(({ what }) => what.startsWith(misses))
  if (!check) throw new Error(`the control has no check “${misses}”`)
  return !holds(check)
}
