/**
 * Produces the health reports: a summary and the readiness, which need no key and so are cached (until Redis connects or
 * disconnects at the latest), and the details. Features add their stats and their advice.
 */
import type { Access } from '../auth/access.ts'
import type { Advice, Feature, SharedParts } from '../feature.ts'
import type { RedisGateway } from '../redis/gateway/redis-gateway.ts'
import { collectStats, healthStats, readStats, statsFor } from './feature-stats.ts'
import type {
  FeatureStats,
  HealthStatus,
  HealthSummary,
  MeasuredSummary,
  PoolStats,
  ProcessStats,
  RedisHealth,
} from './health-responses.ts'
import { type MeasuredQueues, type Measurement, measure, millisecondsSince, ping } from './measurement.ts'
import { recommend, statusOf } from './recommendations.ts'
import { createResultCache } from './result-cache.ts'
import { createScriptProbe, type ScriptProbe } from './script-probe.ts'
import { adviceFor, eventsFor, ownOf, poolFor, queuesFor, summaryFor, textFor } from './visibility.ts'

export interface Health {
  /** For every caller, reduced to what it may see. `ttlMs`: how old a cached summary may be. */
  summary(ttlMs: number, access: Access): Promise<HealthSummary>
  /** For operators; always measured, for all requests at the same time together. */
  redis(access: Access): Promise<RedisHealth>
  /** Whether to send requests here; `reason` when not. */
  ready(): Promise<{ ready: boolean; reason: string | null }>
  /** Counters of this process; sends no Redis command. */
  stats(access: Access): ProcessStats & FeatureStats
}

export type HealthParts = Pick<
  SharedParts,
  | 'version'
  | 'config'
  | 'lifecycle'
  | 'keyRing'
  | 'budget'
  | 'connections'
  | 'semaphore'
  | 'gateway'
  | 'registry'
  | 'queueEvents'
  | 'dispatcher'
  | 'workerCommands'
>

/** How long a readiness is served from memory, ms. A Redis that stops is noticed by then, or once a PING has timed out. */
export const READY_TTL_MS = 250

/** Most queues without events, and most schedulers, that are named one by one. */
const MAX_NAMED = 20

interface JudgedMeasurement {
  status: HealthStatus
  advice: Advice[]
  measurement: Measurement
}

interface Readiness {
  status: 'pass' | 'fail'
  reason: string | null
}

/** A summary before it is reduced to what a caller may see. */
interface CachedSummary {
  status: HealthStatus
  summary: MeasuredSummary
  featureStats: FeatureStats
  advice: Advice[]
  measuredQueues: MeasuredQueues
}

export function createHealth(parts: HealthParts, features: readonly Feature[], now = Date.now): Health {
  const { connections, gateway, lifecycle } = parts
  const startedAtMs = performance.now()
  const stats = collectStats(features)
  const statsInHealth = healthStats(stats)
  const scriptProbe = createScriptProbe(gateway, connections)
  const measurements = createResultCache(() => measureAndJudge(parts, features, scriptProbe))
  const summaries = createResultCache(summarize)
  const readiness = createResultCache(() => probeReadiness(gateway, scriptProbe))
  // A result that says "pass" must not outlive the connection that it was measured on.
  for (const { clear } of [measurements, summaries, readiness]) connections.onChange(clear)

  async function summarize(): Promise<CachedSummary> {
    const measuredAt = performance.now()
    const { status, advice, measurement } = (await measurements.read(0)).result
    const { server, roundTripMs, error = null } = measurement
    const summary: MeasuredSummary = {
      status,
      version: parts.version,
      checkedAt: new Date(now()).toISOString(),
      cached: false,
      responseTimeMs: millisecondsSince(measuredAt),
      uptimeS: Math.round((performance.now() - startedAtMs) / 1000),
      redis: { reachable: server !== undefined, roundTripMs, error },
      pool: poolStats(parts),
    }
    return { status, summary, featureStats: readStats(statsInHealth), advice, measuredQueues: measurement }
  }

  return {
    async summary(ttlMs, access) {
      const askedAt = performance.now()
      const { result: cached, isCached } = await summaries.read(ttlMs)
      const { summary, featureStats, advice, measuredQueues } = cached
      return {
        ...summaryFor(access, summary),
        ...(isCached ? { cached: true, responseTimeMs: millisecondsSince(askedAt) } : undefined),
        ...queuesFor(access, measuredQueues),
        recommendations: adviceFor(access, advice),
        ...statsFor(access, statsInHealth, featureStats),
      }
    },
    async redis(access) {
      const askedAt = performance.now()
      const { result } = await measurements.read(0)
      return describeRedis(parts, result, access, askedAt)
    },
    async ready() {
      if (lifecycle.isDraining()) return { ready: false, reason: 'The service is shutting down.' }
      // Without the events connection every request is still served, from statuses that are at most a second old.
      const unusable = connections.all.find(
        ({ role, ready, suspect }) => role !== 'events' && (!ready || suspect),
      )
      if (unusable) return { ready: false, reason: `The Redis connection ${unusable.name} is not usable.` }
      const { status, reason } = (await readiness.read(READY_TTL_MS)).result
      return { ready: status === 'pass', reason }
    },
    stats: (access) => ({ ...processStats(parts, access), ...statsFor(access, stats, readStats(stats)) }),
  }
}

async function measureAndJudge(
  parts: HealthParts,
  features: readonly Feature[],
  scriptProbe: ScriptProbe,
): Promise<JudgedMeasurement> {
  const measurement = await measure(parts, scriptProbe)
  return { ...judge(parts, features, measurement), measurement }
}

function judge(parts: HealthParts, features: readonly Feature[], measurement: Measurement) {
  const { config, budget, connections, semaphore, queueEvents, workerCommands, keyRing } = parts
  const { server, error, scriptsProblem, counted, uncounted } = measurement
  const own = recommend({
    server,
    redisError: error,
    scriptsProblem,
    budget,
    pool: connections.stats(),
    semaphore: semaphore.stats(),
    events: queueEvents.stats(),
    queues: counted,
    eventlessQueues: queueEvents.eventless().slice(0, MAX_NAMED),
    schedulers: workerCommands.schedulerTroubles().slice(0, MAX_NAMED),
    uncounted,
    replicasWanted: config.DURABILITY_REPLICAS,
    keysProblem: keyRing.problem(),
  })
  const advice = [...own, ...features.flatMap((feature) => feature.advice?.() ?? [])]
  return { status: statusOf(advice), advice }
}

function describeRedis(
  parts: HealthParts,
  { status, advice, measurement }: JudgedMeasurement,
  access: Access,
  askedAt: number,
): RedisHealth {
  const { config, budget, connections, semaphore, gateway, queueEvents } = parts
  const breaker = gateway.breakerStats()
  return {
    status,
    responseTimeMs: millisecondsSince(askedAt),
    roundTripMs: measurement.roundTripMs,
    connections: poolFor(access, poolStats(parts)),
    budget,
    semaphore: semaphore.stats(),
    events: eventsFor(access, queueEvents.stats()),
    commandsSent: gateway.commandsSent(),
    server: measurement.server ?? null,
    error: textFor(access, measurement.error ?? null),
    limitError: textFor(access, connections.stats().lastLimitError),
    breaker: { ...breaker, reason: textFor(access, breaker.reason) },
    replicasWanted: config.DURABILITY_REPLICAS,
    ...queuesFor(access, measurement),
    recommendations: adviceFor(access, advice),
  }
}

/** Never rejects. */
async function probeReadiness(gateway: RedisGateway, scriptProbe: ScriptProbe): Promise<Readiness> {
  try {
    await ping(gateway)
    const reason = (await scriptProbe.problem()) ?? null
    return { status: reason === null ? 'pass' : 'fail', reason }
  } catch (error) {
    return { status: 'fail', reason: (error as Error).message }
  }
}

function processStats(parts: HealthParts, access: Access): ProcessStats {
  const { semaphore, queueEvents, dispatcher, workerCommands, gateway, registry, keyRing } = parts
  return {
    pool: poolFor(access, poolStats(parts)),
    semaphore: semaphore.stats(),
    events: eventsFor(access, queueEvents.stats()),
    waitingWorkers: dispatcher.pendingCount(),
    malformedJobs: workerCommands.malformedCount(),
    commandsSent: gateway.commandsSent(),
    openQueues: registry.seen(),
    knownQueues: registry.stats(),
    requestsByKey: ownOf(access, keyRing.requests()),
  }
}

function poolStats({ connections, budget }: HealthParts): PoolStats {
  const stats = connections.stats()
  return { ...stats, budget: budget.perProcess, headroom: budget.perProcess - stats.created }
}
