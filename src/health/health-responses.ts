/** What health answers, before it is cut to what a caller may see (visibility.ts). In words: schemas.ts. */

import type { JobState } from '../bullmq/job-states.ts'
import type { EventsStats } from '../events/queue-events.ts'
import type { ConnectionBudget } from '../redis/connection/connection-budget.ts'
import type { ConnectionStats } from '../redis/connection/connections.ts'
import type { ServerInfo } from '../redis/connection/server-info.ts'
import type { RedisBreakerStats } from '../redis/gateway/redis-breaker.ts'
import type { SemaphoreStats } from '../redis/gateway/semaphore.ts'
import type { Advice } from './recommendations.ts'

export type Status = 'pass' | 'warn' | 'fail'

/** What is counted by queue, and so is for those who may see it. */
export interface CountedByQueue {
  batchesByType: Record<string, number>
}

export interface PoolStats extends ConnectionStats {
  budget: number
  headroom: number
}

/** Of all subscriptions, in this process. */
export interface DeliveryTotals {
  subscriptions: number
  inFlight: number
  delivered: number
  retried: number
  failed: number
}

export interface Summary<Cache, Batching> {
  status: Status
  version: string
  checkedAt: string
  cached: boolean
  responseTimeMs: number
  uptimeS: number
  redis: { reachable: boolean; roundTripMs: number | null; error: string | null }
  pool: PoolStats
  cache: Cache
  batching: Batching
  queues: Record<string, Record<JobState, number>>
  queuesKnown: number
  recommendations: string[]
}

export interface RedisHealth {
  status: Status
  responseTimeMs: number
  roundTripMs: number | null
  connections: PoolStats
  budget: ConnectionBudget
  semaphore: SemaphoreStats
  events: EventsStats
  commandsSent: Record<string, number>
  server: ServerInfo | null
  error: string | null
  limitError: string | null
  breaker: RedisBreakerStats
  replicasWanted: number
  queues: Record<string, Record<JobState, number>>
  queuesKnown: number
  recommendations: string[]
}

export interface Stats<Cache, Batching> {
  cache: Cache
  batching: Batching
  pool: PoolStats
  semaphore: SemaphoreStats
  events: EventsStats
  waiting: number
  waitingWorkers: number
  webhooks: DeliveryTotals
  commandsSent: Record<string, number>
  openQueues: number
  requestsByKey: Record<string, number>
}

/** An answer without what is made for each caller anew. */
export type Measurable<Answer> = Omit<Answer, 'queuesKnown' | 'recommendations'>

/** Measured once, shown to each as far as that one may see. */
export interface CachedSummary<Cache, Batching> {
  summary: Measurable<Summary<Cache, Batching>>
  advice: Advice[]
  /** Names of all queues there are. */
  known: string[]
  at: number
}
