/**
 * How things are: a summary that is cheap to ask for (kept for HEALTH_TTL, or until Redis comes or goes), and the
 * details behind it. Redis is asked on the `admin` connection, so a health check never stands before a job.
 */

import type { Access } from '../auth/access.ts'
import type { KeyRing } from '../auth/key-ring.ts'
import type { JobState } from '../bullmq/job-states.ts'
import type { EventsStats } from '../events/queue-events.ts'
import type { QueueRegistry } from '../queues/queue-registry.ts'
import type { ConnectionBudget } from '../redis/connection/connection-budget.ts'
import type { RedisConnections } from '../redis/connection/connections.ts'
import { readServerInfo, SERVER_INFO_COMMANDS, type ServerInfo } from '../redis/connection/server-info.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Semaphore } from '../redis/gateway/semaphore.ts'
import type {
  CachedSummary,
  CountedByQueue,
  DeliveryTotals,
  Measurable,
  PoolStats,
  RedisHealth,
  Stats,
  Status,
  Summary,
} from './health-responses.ts'
import { type Advice, recommend } from './recommendations.ts'
import { adviceFor, batchingFor, seenBy, summaryFor, visibleTo } from './visibility.ts'

export interface HealthDeps<Cache extends { enabled: boolean }, Batching extends CountedByQueue> {
  version: string
  budget: ConnectionBudget
  connections: RedisConnections
  semaphore: Semaphore
  gateway: RedisGateway
  registry: QueueRegistry
  eventsStats(): EventsStats
  /** Requests that are held for a job. */
  waiting(): number
  /** Requests of workers that wait for a job. */
  waitingWorkers(): number
  pushStats(): DeliveryTotals
  /** Subscriptions that send nothing, or not well, and why. */
  pushTroubles(): { queue: string; reason: string }[]
  cacheStats(): Cache
  batchStats(): Batching
  /** Replicas that must confirm a job. */
  replicasWanted: number
  keyRing: Pick<KeyRing, 'problem' | 'requests'>
  now?: () => number
}

export interface Health<Cache, Batching> {
  /** For anyone, as far as that one may see. `ttlMs`: how old a kept answer may be. */
  summary(ttlMs: number, access: Access): Promise<Summary<Cache, Batching>>
  /** For the operator; always measured now. */
  redis(access: Access): Promise<RedisHealth>
  /** Whether requests should be sent here; `reason` when not. */
  ready(): Promise<{ ready: boolean; reason: string | null }>
  stats(access: Access): Stats<Cache, Batching>
  /** From now on `ready` says no. */
  drain(): void
}

/** A health answer is read by people and probes; beyond this many queues it would be neither short nor cheap. */
const MAX_QUEUES = 50
/** A failure is not remembered for longer, whatever the TTL: a probe should see the recovery. */
const FAILURE_TTL_MS = 1_000

const PING: RedisOperation = { label: 'ping', priority: 'list', isWrite: false, commands: 1 }
const INFO: RedisOperation = {
  label: 'serverInfo',
  priority: 'list',
  isWrite: false,
  commands: SERVER_INFO_COMMANDS,
}

interface Measured {
  server: ServerInfo | undefined
  error: string | undefined
  roundTripMs: number | null
  queues: Record<string, Record<JobState, number>>
  /** Queues whose keys are not what BullMQ makes of them. */
  uncounted: string[]
  /** Names of all queues there are. */
  known: string[]
}

export function createHealth<Cache extends { enabled: boolean }, Batching extends CountedByQueue>(
  deps: HealthDeps<Cache, Batching>,
): Health<Cache, Batching> {
  const {
    version,
    budget,
    connections,
    semaphore,
    gateway,
    registry,
    eventsStats,
    waiting,
    waitingWorkers,
    pushStats,
    pushTroubles,
    cacheStats,
    batchStats,
    replicasWanted,
    keyRing,
    now = Date.now,
  } = deps
  const startedAt = now()
  let kept: CachedSummary<Cache, Batching> | undefined
  let measuring: Promise<CachedSummary<Cache, Batching>> | undefined
  let draining = false
  // A summary that says "pass" must not outlive the connection it speaks of.
  connections.onChange(() => {
    kept = undefined
  })

  async function measure(): Promise<Measured> {
    try {
      const began = performance.now()
      await gateway.onAdmin(PING, (client) => client.ping())
      const roundTripMs = millisecondsSince(began)
      const server = await gateway.onAdmin(INFO, readServerInfo)
      const known = await registry.known()
      const queues: Measured['queues'] = {}
      const uncounted: string[] = []
      await Promise.all(
        known.slice(0, MAX_QUEUES).map(async (name) => {
          const counts = await registry.counts(name).catch(() => undefined)
          if (counts) queues[name] = counts
          else uncounted.push(name)
        }),
      )
      return { server, error: undefined, roundTripMs, queues, uncounted, known }
    } catch (error) {
      const { message } = error as Error
      // What a command was told, and why: of the second only the connection knows.
      const { lastError } = connections.stats()
      return {
        server: undefined,
        error: lastError === null ? message : `${message} (${lastError})`,
        roundTripMs: null,
        queues: {},
        uncounted: [],
        known: [],
      }
    }
  }

  function judge({ server, error, queues, uncounted }: Measured): { status: Status; advice: Advice[] } {
    const advice = recommend({
      server,
      redisError: error,
      budget,
      pool: connections.stats(),
      semaphore: semaphore.stats(),
      events: eventsStats(),
      queues,
      uncounted,
      cacheEnabled: cacheStats().enabled,
      replicasWanted,
      keysProblem: keyRing.problem(),
      subscriptions: pushTroubles(),
    })
    const levels = advice.map(({ level }) => level)
    const status = levels.includes('fail') ? 'fail' : levels.includes('warn') ? 'warn' : 'pass'
    return { status, advice }
  }

  function poolStats(): PoolStats {
    const stats = connections.stats()
    return { ...stats, budget: budget.perProcess, headroom: budget.perProcess - stats.created }
  }

  async function summarise(): Promise<CachedSummary<Cache, Batching>> {
    const began = performance.now()
    const measured = await measure()
    const { status, advice } = judge(measured)
    const summary: Measurable<Summary<Cache, Batching>> = {
      status,
      version,
      checkedAt: new Date(now()).toISOString(),
      cached: false,
      responseTimeMs: millisecondsSince(began),
      uptimeS: Math.round((now() - startedAt) / 1000),
      redis: {
        reachable: measured.server !== undefined,
        roundTripMs: measured.roundTripMs,
        error: measured.error ?? null,
      },
      pool: poolStats(),
      cache: cacheStats(),
      batching: batchStats(),
      queues: measured.queues,
    }
    kept = { summary, advice, known: measured.known, at: now() }
    return kept
  }

  return {
    async summary(ttlMs, access) {
      const began = performance.now()
      const maxAgeMs = kept?.summary.status === 'fail' ? Math.min(ttlMs, FAILURE_TTL_MS) : ttlMs
      if (kept && now() - kept.at < maxAgeMs) {
        return { ...summaryFor(access, kept), cached: true, responseTimeMs: millisecondsSince(began) }
      }
      // Probes that come together share one look.
      measuring ??= summarise().finally(() => {
        measuring = undefined
      })
      return summaryFor(access, await measuring)
    },
    async redis(access) {
      const began = performance.now()
      const measured = await measure()
      const { status, advice } = judge(measured)
      return {
        status,
        responseTimeMs: millisecondsSince(began),
        roundTripMs: measured.roundTripMs,
        connections: poolStats(),
        budget,
        semaphore: semaphore.stats(),
        events: eventsStats(),
        commandsSent: gateway.commandsSent(),
        server: measured.server ?? null,
        error: measured.error ?? null,
        limitError: connections.stats().lastLimitError,
        breaker: gateway.breakerStats(),
        replicasWanted,
        queues: seenBy(access, measured.queues),
        queuesKnown: visibleTo(access, measured.known).length,
        recommendations: adviceFor(access, advice),
      }
    },
    async ready() {
      if (draining) return { ready: false, reason: 'The service is shutting down.' }
      // Without the events connection all is served, a second old at most.
      const unusable = connections.all.find(
        ({ role, ready, suspect }) => role !== 'events' && (!ready || suspect),
      )
      if (unusable) return { ready: false, reason: `The Redis connection ${unusable.name} is not usable.` }
      try {
        await gateway.onAdmin(PING, (client) => client.ping())
        return { ready: true, reason: null }
      } catch (error) {
        return { ready: false, reason: (error as Error).message }
      }
    },
    stats: (access) => ({
      cache: cacheStats(),
      batching: batchingFor(access, batchStats()),
      pool: poolStats(),
      semaphore: semaphore.stats(),
      events: eventsStats(),
      waiting: waiting(),
      waitingWorkers: waitingWorkers(),
      webhooks: pushStats(),
      commandsSent: gateway.commandsSent(),
      openQueues: registry.seen(),
      requestsByKey: keyRing.requests(),
    }),
    drain() {
      draining = true
    },
  }
}

function millisecondsSince(began: number): number {
  return Math.round((performance.now() - began) * 100) / 100
}
