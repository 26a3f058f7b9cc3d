/** Formats figures for the terminal and the report. */
import type { Measure } from './bench.ts'
import type { Goal } from './scenarios/scenario.ts'

export function columns(row: Measure): Record<string, number | string> {
  return {
    'requests/s': round(row.requestsPerS),
    'p50 ms': round(row.p50Ms),
    'p99 ms': round(row.p99Ms),
    'p99.9 ms': round(row.p999Ms),
    'Node µs': round(row.nodeUs),
    'Redis µs': round(row.redisUs),
    'Redis commands': round(row.commands),
    connections: round(row.connections),
    'RSS MB': round(row.rssMb),
    errors: round(row.errors),
  }
}

export function isMet({ measured, atMost, atLeast }: Goal): boolean {
  return (atMost === undefined || measured <= atMost) && (atLeast === undefined || measured >= atLeast)
}

export function formatGoal(goal: Goal): string {
  const { what, measured, atMost, atLeast } = goal
  const bound = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`
  return `${isMet(goal) ? 'met   ' : 'MISSED'} ${what}: ${round(measured)} (${bound})`
}

/** Empty for a figure that was not measured: NaN, or null once it was saved. */
export function round(value: number | null): number | string {
  if (value === null || Number.isNaN(value)) return ''
  return value >= 100 ? Math.round(value) : Math.round(value * 100) / 100
}
