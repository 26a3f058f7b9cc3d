/** Types of scenarios and their runs. A scenario causes a real fault and checks what must hold; its controls must fail a check. */
import { percentile } from './checker.ts'
import { createTestbed, type Entry, type Testbed } from './testbed.ts'

export interface Check {
  what: string
  measured: number
  atMost?: number
  atLeast?: number
  /** Some of the counted things, for diagnosis. */
  samples?: string[]
}

export interface Finding {
  checks: Check[]
  /** What the run did, for the table: jobs, kills, … */
  counts: Record<string, number>
  attack?: AttackFigures
}

/** What an attack did to ordinary requests beside it (p99) and to the memory of the service. */
export interface AttackFigures {
  seconds: number
  quietMs: number
  duringMs: number
  afterMs: number
  beforeMb: number
  mostMb: number
  afterMb: number
}

export interface Scale {
  entry: Entry
  /** Small numbers for CI, on a machine with other load. */
  isQuick: boolean
  /** Duration of the whole run, unless quick. */
  minutes: number
  /** The run of a control, which has small numbers and ends with the attack. */
  isControl?: boolean
  /** Reports progress. */
  progress(text: string): void
}

export interface Scenario {
  id: string
  fault: string
  run(testbed: Testbed, scale: Scale): Promise<Finding>
  controls: Control[]
}

/** The same fault and checks without something that the guarantee depends on. */
export interface Control {
  what: string
  /** The beginning of the check that it must miss. */
  misses: string
  run(testbed: Testbed, scale: Scale): Promise<Finding>
}

/** The duration of a phase, s: its share of a long run. */
export function secondsOf({ isQuick, minutes }: Scale, quickS: number, share: number): number {
  return isQuick ? quickS : Math.max(quickS, minutes * 60 * share)
}

/**
 * Checks the 99th percentile of times against a bound. A quick run checks the median against ten times the bound, which
 * still detects requests that wait for something they must not wait for.
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

export interface ScenarioRun extends Finding {
  seconds: number
}

/** The check that every run has. */
export const CRASHED = 'processes that crashed'

/** Runs a scenario or control on its own test bed, and checks that no process crashed. */
export async function runScenario(act: Scenario | Control, scale: Scale): Promise<ScenarioRun> {
  // Other load on the machine makes the event loop lag, which is not under test.
  const testbed = createTestbed(scale.entry, scale.isQuick ? { MAX_EVENT_LOOP_DELAY: '0' } : {})
  const startedAt = performance.now()
  try {
    const finding = await act.run(testbed, scale)
    const crashed = { what: CRASHED, measured: testbed.crashes(), atMost: 0 }
    return {
      ...finding,
      checks: [...finding.checks, crashed],
      seconds: (performance.now() - startedAt) / 1_000,
    }
  } finally {
    await testbed.end()
  }
}

/** The scale of a control of an attack. */
export function controlScale(scale: Scale): Scale {
  return { ...scale, isQuick: true, isControl: true }
}

/** Whether a control has missed what it must miss. */
export function missesItsCheck({ misses }: Control, { checks }: Finding): boolean {
  const check = checks.find(({ what }) => what.startsWith(misses))
  if (!check) throw new Error(`the control has no check “${misses}”`)
  return !holds(check)
}
