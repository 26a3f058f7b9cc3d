/**
 * Health is measured once for all callers and reduced to what each may see: the queues that its key covers, and, only with
 * the scope `manage`, what would help an attacker (addresses in error texts, advice).
 */
import type { Access } from '../auth/access.ts'
import type { Advice } from '../feature.ts'
import type { MeasuredSummary } from './health-responses.ts'

export function summaryFor(access: Access, summary: MeasuredSummary): MeasuredSummary {
  const { redis, pool, queues } = summary
  const mayManage = access.hasScope('manage')
  return {
    ...summary,
    redis: mayManage || redis.error === null ? redis : { ...redis, error: 'Redis does not answer.' },
    pool: mayManage ? pool : { ...pool, lastError: null, lastLimitError: null },
    queues: seenBy(access, queues),
  }
}

/** The queues among `queues` that the caller may see. */
export function visibleTo(access: Access, queues: string[]): string[] {
  return access.hasScope('read') || access.hasScope('manage') ? queues.filter(access.canAccessQueue) : []
}

/** A record keyed by queue, without the queues that the caller may not see. */
export function seenBy<T>(access: Access, byQueue: Record<string, T>): Record<string, T> {
  return Object.fromEntries(visibleTo(access, Object.keys(byQueue)).map((queue) => [queue, byQueue[queue]!]))
}

/** The sentences, for a caller who can act on them. */
export function adviceFor(access: Access, advice: Advice[]): string[] {
  if (!access.hasScope('manage')) return []
  return advice
    .filter(({ queue }) => queue === undefined || access.canAccessQueue(queue))
    .map(({ sentence }) => sentence)
}
