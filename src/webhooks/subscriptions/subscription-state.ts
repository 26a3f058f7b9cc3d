/**
 * Decisions about the subscriptions of this process, as functions of plain values; active-subscriptions.ts
 * carries them out.
 */
import type { ConcurrencyLimit } from '../../dispatch/leased-job.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import type { EndpointStats } from '../delivery/endpoint-breaker.ts'
import type { Subscription } from './subscription.ts'

export interface WorkerPlan {
  stop: boolean
  start: boolean
}

/**
 * Whether to stop and start the delivery worker of a queue, given the revision that it delivers for
 * (`undefined`: no worker runs) and the subscription that Redis has now (`undefined`: none). A worker never
 * changes its revision; it is replaced.
 */
export function planWorker(
  runningRevision: string | undefined,
  next: Subscription | undefined,
  isStopping: boolean,
): WorkerPlan {
  const isRunning = runningRevision !== undefined
  if (isRunning && runningRevision === next?.revision) return { stop: false, start: false }
  return { stop: isRunning, start: next !== undefined && next.paused === null && !isStopping }
}

/**
 * Why a subscription delivers nothing, or fails: a predicate for "The subscription of emails …". `undefined`:
 * it delivers.
 */
export function troubleOf(
  { paused }: Pick<Subscription, 'paused'>,
  stats: Pick<EndpointStats, 'failing' | 'lastError'> | undefined,
): string | undefined {
  if (paused) return `is paused: ${paused.reason}`
  // Only a subscription that could not be unsealed has neither a pause nor a worker.
  if (!stats) return 'sends nothing: its secrets were sealed with another SECRET'
  return stats.failing ? `fails: ${stats.lastError}` : undefined
}

const REFRESH_MS = 60_000
const RETRY_MS = 5_000

/**
 * When to compare with Redis again, ms; `undefined`: not before the next reconnect, since only this process
 * writes.
 */
export function nextRefreshMs(hasSucceeded: boolean, hasOtherReplicas: boolean): number | undefined {
  if (!hasSucceeded) return RETRY_MS
  return hasOtherReplicas ? REFRESH_MS : undefined
}

/** The limit that all replicas share; a take under a revision other than that in Redis takes nothing. */
export function concurrencyLimitOf(
  { queue, concurrency, revision, rateLimit }: Subscription,
  keyspace: Pick<Keyspace, 'deliveries' | 'subscription'>,
): ConcurrencyLimit {
  return {
    key: keyspace.deliveries(queue),
    limit: concurrency,
    owner: keyspace.subscription(queue),
    revision,
    rateLimit: rateLimit ?? undefined,
  }
}
