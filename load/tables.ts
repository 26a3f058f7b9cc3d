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
    'GC µs': round(row.gcUs),
    'Redis µs': round(row.redisUs),
    'Redis commands': round(row.commands),
    connections: round(row.connections),
    'RSS MB': round(row.rssMb),
    errors: round(row.errors),
    ...Object.fromEntries(Object.entries(row.more ?? {}).map(([name, value]) => [name, round(value)])),
  }
}

export function isMet({ measured, atMost, atLeast }: Goal): boolean {
  return (atMost === undefined || measured <= atMost) && (atLeast === undefined || measured >= atLeast)
}

export function formatGoal(goal: Goal): string {
  const { what, measured, atMost, atLeast, isRequired } = goal
  const bound = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`
  const required = isRequired ? ', required' : ''
  return `${isMet(goal) ? 'met   ' : 'MISSED'} ${what}: ${round(measured)} (${bound}${required})`
}

/** Empty for a figure that was not measured: NaN, null once it was saved, or absent from an old run. */
export function round(value: number | null | undefined): number | string {
  if (value === null || value === undefined || Number.isNaN(value)) return ''
  return value >= 100 ? Math.round(value) : Math.round(value * 100) / 100
}
