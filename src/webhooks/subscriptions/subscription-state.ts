/**
 * Decisions about the subscriptions of this process, as functions of plain values; active-subscriptions.ts
 * carries them out.
 */
import type { ConcurrencyLimit } from '../../dispatch/leased-job.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import type { EndpointStats } from '../delivery/endpoint-breaker.ts'
import { hasOldSeals, type Subscription } from './subscription.ts'
import { isMalformed, type StoredSubscription } from './subscription-record.ts'

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
  next: StoredSubscription | undefined,
  isStopping: boolean,
): WorkerPlan {
  const isRunning = runningRevision !== undefined
  const isServable = next !== undefined && !isMalformed(next)
  if (isRunning && isServable && runningRevision === next.revision) return { stop: false, start: false }
  return { stop: isRunning, start: isServable && next.paused === null && !isStopping }
}

interface RunningWorker {
  stats(): Pick<EndpointStats, 'failing' | 'lastError'>
  takeError(): string | undefined
}

/**
 * Why a subscription delivers nothing, or fails: a predicate for "The subscription of emails …". `undefined`:
 * it delivers.
 */
export function troubleOf(stored: StoredSubscription, worker: RunningWorker | undefined): string | undefined {
  if (isMalformed(stored)) return `sends nothing: it is malformed in Redis: ${stored.problem}`
  if (stored.paused) return `is paused: ${stored.paused.reason}`
  const takeError = worker?.takeError()
  if (takeError !== undefined) return `takes no jobs: ${takeError}`
  const stats = worker?.stats()
  if (stats) return stats.failing ? `fails: ${stats.lastError}` : undefined
  // Only a subscription that could not be unsealed has neither a pause nor a worker.
  if (!hasOldSeals(stored))
    return 'sends nothing: its secrets were sealed with another SECRET, or for another queue or URL'
  return 'sends nothing: version 0.1.0 sealed its secrets, which WEBHOOK_OPEN_OLD_SEALS=true opens'
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
