/** The types of the health responses; schemas.ts has their schemas. */
import type { JobState } from '../bullmq/job-states.ts'
import type { EventsStats } from '../events/queue-events.ts'
import type { KnownQueuesStats } from '../queues/known-queues.ts'
import type { ConnectionBudget } from '../redis/connection/connection-budget.ts'
import type { ConnectionStats } from '../redis/connection/connections.ts'
import type { ServerInfo } from '../redis/connection/server-info.ts'
import type { RedisBreakerStats } from '../redis/gateway/redis-breaker.ts'
import type { SemaphoreStats } from '../redis/gateway/semaphore.ts'

/** `fail`: jobs are not accepted. `warn`: see the recommendations. */
export type HealthStatus = 'pass' | 'warn' | 'fail'

/** Jobs per state, by queue. */
export type QueueCounts = Record<string, Record<JobState, number>>

/** What features report about themselves, by the property's name (FeatureStat). */
export type FeatureStats = Record<string, unknown>

export interface PoolStats extends ConnectionStats {
  budget: number
  headroom: number
}

export interface ListedQueues {
  queues: QueueCounts
  queuesKnown: number
  queuesOmitted: number
}

/** Properties that depend on what the caller may see. */
interface PerCaller extends ListedQueues {
  recommendations: string[]
}

/** GET /health, measured once for all callers. The stats of features that belong here are added to it. */
export interface MeasuredSummary {
  status: HealthStatus
  version: string
  /** RFC 3339. */
  checkedAt: string
  cached: boolean
  responseTimeMs: number
  uptimeS: number
  redis: { reachable: boolean; roundTripMs: number | null; error: string | null }
  pool: PoolStats
}

export type HealthSummary = MeasuredSummary & PerCaller & FeatureStats

export interface RedisHealth extends PerCaller {
  status: HealthStatus
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
}

/** GET /stats without the stats of features. */
export interface ProcessStats {
  pool: PoolStats
  semaphore: SemaphoreStats
  events: EventsStats
  waitingWorkers: number
  malformedJobs: number
  commandsSent: Record<string, number>
  openQueues: number
  knownQueues: KnownQueuesStats
  requestsByKey: Record<string, number>
}
