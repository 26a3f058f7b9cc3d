/**
 * Health is measured for all and shown to each as far as its key reaches: no queue that lies outside, and what an attacker
 * would like to know (addresses in errors, advice) only to who may `manage`.
 */
import type { Access } from '../auth/access.ts'
import type { CachedSummary, CountedByQueue, Summary } from './health-responses.ts'
import type { Advice } from './recommendations.ts'

export function summaryFor<Cache, Batching extends CountedByQueue>(
  access: Access,
  { summary, advice, known }: CachedSummary<Cache, Batching>,
): Summary<Cache, Batching> {
  const { redis, pool, queues, batching } = summary
  const mayManage = access.hasScope('manage')
  return {
    ...summary,
    redis: mayManage || redis.error === null ? redis : { ...redis, error: 'Redis does not answer.' },
    pool: mayManage ? pool : { ...pool, lastError: null, lastLimitError: null },
    queues: seenBy(access, queues),
    queuesKnown: visibleTo(access, known).length,
    batching: batchingFor(access, batching),
    recommendations: adviceFor(access, advice),
  }
}

/** Which of these queues this one may see. */
export function visibleTo(access: Access, queues: string[]): string[] {
  return access.hasScope('read') || access.hasScope('manage') ? queues.filter(access.canAccessQueue) : []
}

/** What is kept by queue, without the queues that this one may not see. */
export function seenBy<T>(access: Access, byQueue: Record<string, T>): Record<string, T> {
  return Object.fromEntries(visibleTo(access, Object.keys(byQueue)).map((queue) => [queue, byQueue[queue]!]))
}

export function batchingFor<Batching extends CountedByQueue>(access: Access, batching: Batching): Batching {
  return { ...batching, batchesByType: seenBy(access, batching.batchesByType) }
}

/** Sentences for people who can act on them. */
export function adviceFor(access: Access, advice: Advice[]): string[] {
  if (!access.hasScope('manage')) return []
  return advice
    .filter(({ queue }) => queue === undefined || access.canAccessQueue(queue))
    .map(({ sentence }) => sentence)
}
