/**
 * Compares a history with the jobs found in Redis; a pure function. The history is valid if no job is lost, unexpected,
 * duplicated, misnamed or a false fail.
 */
import type { History } from './history.ts'

/** What a drain found in Redis. */
export interface Seen {
  /** The ids of all jobs (`queue:key`) with this payload. */
  jobs: Map<string, Set<string>>
  /** How often a worker received the payload. */
  executions: Map<string, number>
  /** Keys of incomplete jobs: in no state, in two states, or in a state without a hash. */
  broken: string[]
}

export interface Verdict {
  attempted: number
  acknowledged: number
  failed: number
  unknown: number
  /** Acknowledged, but no job has the payload, or no worker received it. */
  lost: string[]
  /** In Redis, but not in the history. */
  unexpected: string[]
  /** Payloads of more than one job. */
  duplicated: string[]
  /** Unknown outcome, and in Redis. */
  recovered: number
  /** Reported as not executed, but in Redis. */
  falseFail: string[]
  /** Jobs that workers received more than once; allowed, because delivery is at least once. */
  redelivered: number
  /** Acknowledged with an id that differs from that of its job. */
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

/** Adds up the verdicts of several histories; lists become counts. */
export function addUp(verdicts: Verdict[]): Record<keyof Verdict, number> {
  const size = (value: number | string[]) => (typeof value === 'number' ? value : value.length)
  const names = Object.keys(verdicts[0] ?? {}) as (keyof Verdict)[]
  return Object.fromEntries(
    names.map((name) => [name, verdicts.reduce((sum, verdict) => sum + size(verdict[name]), 0)]),
  ) as Record<keyof Verdict, number>
}

/** The percentile `p` (0 to 1) of the values. */
export function percentile(values: number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0
}

/** Growth per hour, by least squares. */
export function slopePerHour(samples: { atMs: number; value: number }[]): number {
  const mean = (of: (sample: { atMs: number; value: number }) => number) =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
  const meanAt = mean(({ atMs }) => atMs)
  const meanValue = mean(({ value }) => value)
  const spread = mean(({ atMs }) => (atMs - meanAt) ** 2)
  if (spread === 0) return 0
  return (mean(({ atMs, value }) => (atMs - meanAt) * (value - meanValue)) / spread) * 3_600_000
}
