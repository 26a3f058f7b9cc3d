/**
 * Compares what was said with what is there. Pure: a history and what was seen in, a verdict out. Valid: nothing is lost,
 * unexpected, duplicated, misnamed or a false fail.
 */
import type { History } from './history.ts'

/** What a drain found in Redis. */
export interface Seen {
  /** The ids of all jobs (`queue:key`) with this payload. */
  jobs: Map<string, Set<string>>
  /** How often a worker was given it. */
  executions: Map<string, number>
  /** Keys that are half a job: in no state, in two, or named by a state and not there. */
  broken: string[]
}

export interface Verdict {
  attempted: number
  acknowledged: number
  failed: number
  unknown: number
  /** Acknowledged, and no job has it, or no worker was given it. */
  lost: string[]
  /** There, and nobody asked for it. */
  unexpected: string[]
  /** More than one job has it. */
  duplicated: string[]
  /** Of unknown outcome, and there. */
  recovered: number
  /** Said not to have been executed, and there. */
  falseFail: string[]
  /** How many were given to a worker more than once; allowed, as delivery is at least once. */
  redelivered: number
  /** Acknowledged under an id that is not that of its job. */
  misnamed: string[]
}

export function check({ operations }: History, { jobs, executions }: Seen): Verdict {
  const known = new Set(operations.map(({ payload }) => payload))
  const having = (outcome: string) => operations.filter((one) => one.outcome === outcome)
  const isThere = ({ payload }: { payload: string }) => jobs.has(payload)
  const payloads = (some: { payload: string }[]) => some.map(({ payload }) => payload)
  const acknowledged = having('ok')
  return {
    attempted: operations.length,
    acknowledged: acknowledged.length,
    failed: having('fail').length,
    unknown: having('unknown').length,
    lost: payloads(acknowledged.filter((one) => !isThere(one) || !executions.has(one.payload))),
    unexpected: [...jobs.keys()].filter((payload) => !known.has(payload)),
    duplicated: [...jobs].filter(([, ids]) => ids.size > 1).map(([payload]) => payload),
    recovered: having('unknown').filter(isThere).length,
    redelivered: [...executions.values()].filter((count) => count > 1).length,
    falseFail: payloads(having('fail').filter(isThere)),
    misnamed: payloads(
      acknowledged.filter(({ payload, id }) => isThere({ payload }) && !jobs.get(payload)!.has(id ?? '')),
    ),
  }
}

/** Sums, of verdicts of several histories; `lost` and its like as counts. */
export function addUp(verdicts: Verdict[]): Record<keyof Verdict, number> {
  const size = (value: number | string[]) => (typeof value === 'number' ? value : value.length)
  const names = Object.keys(verdicts[0] ?? {}) as (keyof Verdict)[]
  return Object.fromEntries(
    names.map((name) => [name, verdicts.reduce((sum, verdict) => sum + size(verdict[name]), 0)]),
  ) as Record<keyof Verdict, number>
}

/** The value below which the share `p` (0 to 1) of the values lies. */
export function percentile(values: number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0
}

/** How fast it grows, per hour, by least squares. */
export function slopePerHour(samples: { atMs: number; value: number }[]): number {
  const mean = (of: (sample: { atMs: number; value: number }) => number) =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
  const meanAt = mean(({ atMs }) => atMs)
  const meanValue = mean(({ value }) => value)
  const spread = mean(({ atMs }) => (atMs - meanAt) ** 2)
  if (spread === 0) return 0
  return (mean(({ atMs, value }) => (atMs - meanAt) * (value - meanValue)) / spread) * 3_600_000
}
