/**
 * Health is measured once for all callers and reduced to what each may see: the queues that its key covers; error texts and
 * advice only with the scope `manage`; and texts that may name queues, keys or addresses of others only with a key that
 * covers all queues.
 */
import type { Access } from '../auth/access.ts'
import type { EventsStats } from '../events/queue-events.ts'
import type { Advice } from '../feature.ts'
import type { ListedQueues, MeasuredSummary, PoolStats } from './health-responses.ts'
import type { MeasuredQueues } from './measurement.ts'

/** Bounds a response; the queues that matter most come first. */
const MAX_LISTED_QUEUES = 50
const MAX_QUEUE_ADVICE = 50

export function summaryFor(access: Access, summary: MeasuredSummary): MeasuredSummary {
  const { redis, pool } = summary
  const error = textFor(access, redis.error, 'Redis does not answer.')
  return { ...summary, redis: { ...redis, error }, pool: poolFor(access, pool) }
}

export function poolFor(access: Access, pool: PoolStats): PoolStats {
  const { lastError, lastLimitError } = pool
  if (!access.hasScope('manage')) return { ...pool, lastError: null, lastLimitError: null }
  return {
    ...pool,
    lastError: textFor(access, lastError, HIDDEN),
    lastLimitError: textFor(access, lastLimitError, HIDDEN),
  }
}

export function eventsFor(access: Access, events: EventsStats): EventsStats {
  return { ...events, reason: textFor(access, events.reason, 'Job events are not received.') }
}

/** Errors of Redis, of its provider and of the network quote keys, users and addresses. */
export function textFor(access: Access, text: string | null, substitute = HIDDEN): string | null {
  return text === null || mayReadTexts(access) ? text : substitute
}

const HIDDEN = 'Only a key with the scope manage and for all queues may read this text.'

function mayReadTexts(access: Access): boolean {
  return access.hasScope('manage') && access.coversAllQueues
}

/** The queues that a caller may see; at most 50 of them with their jobs. */
export function queuesFor(access: Access, { counted, known }: MeasuredQueues): ListedQueues {
  const visible = new Set(
    visibleTo(
      access,
      counted.map(([queue]) => queue),
    ),
  )
  const listed = counted.filter(([queue]) => visible.has(queue)).slice(0, MAX_LISTED_QUEUES)
  const queuesKnown =
    access.coversAllQueues && maySeeQueues(access) ? known.total : visibleTo(access, known.names).length
  return {
    // Unlike an assignment, fromEntries makes a property of any name, `__proto__` as well.
    queues: Object.fromEntries(listed),
    queuesKnown,
    queuesOmitted: Math.max(0, queuesKnown - listed.length),
  }
}

/** The queues among `queues` that the caller may see. */
export function visibleTo(access: Access, queues: string[]): string[] {
  return maySeeQueues(access) ? queues.filter(access.canAccessQueue) : []
}

function maySeeQueues(access: Access): boolean {
  return access.hasScope('read') || access.hasScope('manage')
}

/** A record keyed by queue, without the queues that the caller may not see. */
export function seenBy<T>(access: Access, byQueue: Record<string, T>): Record<string, T> {
  return Object.fromEntries(visibleTo(access, Object.keys(byQueue)).map((queue) => [queue, byQueue[queue]!]))
}

/** A record keyed by the id of an API key: the whole for a key that covers all queues, otherwise the caller's own entry. */
export function ownOf<T>(access: Access, byKey: Record<string, T>): Record<string, T> {
  if (access.coversAllQueues) return byKey
  return Object.fromEntries(Object.entries(byKey).filter(([id]) => id === access.keyId))
}

/** The sentences, for a caller who can act on them. */
export function adviceFor(access: Access, advice: Advice[]): string[] {
  if (!access.hasScope('manage')) return []
  const visible = advice.filter(
    ({ queue, quotesText = false }) =>
      (queue === undefined || access.canAccessQueue(queue)) && (access.coversAllQueues || !quotesText),
  )
  const general = visible.filter(({ queue }) => queue === undefined)
  const ofQueues = visible.filter(({ queue }) => queue !== undefined)
  const sentences = [...general, ...ofQueues.slice(0, MAX_QUEUE_ADVICE)].map(({ sentence }) => sentence)
  const more = ofQueues.length - MAX_QUEUE_ADVICE
  if (more > 0) sentences.push(`There are ${more} more recommendations on queues. Follow these first.`)
  return sentences
}
