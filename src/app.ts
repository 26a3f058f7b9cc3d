/**
 * Composition root: creates the shared parts, then the features in the order of the list below. Each long-lived part
 * registers its end on the line after it is created; lifecycle.ts runs the ends in reverse.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { openKeyRing } from './auth/key-ring.ts'
import type { Config } from './config/schema.ts'
import { parseSecrets } from './config/secret.ts'
import { createDispatcher } from './dispatch/dispatcher.ts'
import { createSchedulerIteration } from './dispatch/scheduler-iteration.ts'
import { createStalledRecovery } from './dispatch/stalled-recovery.ts'
import { createWorkerCommands } from './dispatch/worker-commands.ts'
import { createQueueEvents } from './events/queue-events.ts'
import { type Feature, type FeatureDefinition, type SharedParts, selectFeatures } from './feature.ts'
import { healthFeature } from './health/feature.ts'
import { createHttpServer, registerHttpPlugins } from './http/http-server.ts'
import { createHttpValidator } from './http/request-validation.ts'
import { enqueueFeature } from './jobs/enqueue/feature.ts'
import { eventFeature } from './jobs/status/event-feature.ts'
import { statusFeature } from './jobs/status/feature.ts'
import { createJobReader } from './jobs/status/job-reader.ts'
import { createStatusCache } from './jobs/status/status-cache.ts'
import { createWaiters } from './jobs/status/waiting/waiters.ts'
import { leaseFeature } from './leases/feature.ts'
import { createLifecycle, type Lifecycle } from './lifecycle.ts'
import { createQueueRegistry } from './queues/queue-registry.ts'
import { createSharedBackends } from './queues/shared-backend.ts'
import { computeConnectionBudget, maxWaitingOperations } from './redis/connection/connection-budget.ts'
import { createRedisConnections } from './redis/connection/connections.ts'
import type { RedisAddress } from './redis/connection/redis-address.ts'
import { createRedisGateway } from './redis/gateway/redis-gateway.ts'
import { createSemaphore } from './redis/gateway/semaphore.ts'
import { createKeyspace } from './redis/keyspace.ts'
import { webhookFeature } from './webhooks/feature.ts'

/** The features, in the order in which their routes are documented. Health comes last, since it reports on the others. */
export const featureDefinitions: readonly FeatureDefinition[] = [
  enqueueFeature,
  statusFeature,
  eventFeature,
  leaseFeature,
  webhookFeature,
  healthFeature,
]

export interface App {
  http: FastifyInstance
  /** Whether any API key exists, so that the service may be reachable from other machines. */
  requiresKey(): boolean
  /** From now on `/health/ready` responds with 503; every other route is served as before. */
  drain(): void
}

/** Builds the service; nothing listens yet. Also succeeds while Redis is unavailable, and connects once it is back. */
export async function createApp(config: Config, address: RedisAddress, log: Logger): Promise<App> {
  const definitions = selectFeatures(featureDefinitions, config.FEATURES_DISABLED)
  const lifecycle = createLifecycle()
  const http = createHttpServer(config, log)
  http.addHook('preClose', () => lifecycle.stop())
  http.addHook('onClose', () => lifecycle.close())
  try {
    const parts = await createSharedParts(config, address, log, lifecycle)
    const { keyRing, version } = parts
    const features = createFeatures(definitions, parts, lifecycle)
    const usesEventStreams = definitions.some((definition) => definition.usesEventStreams)
    await registerHttpPlugins(http, { config, log, keyRing, version, usesEventStreams })
    for (const feature of features) await feature.routes?.(http)
    startWhenReady(http, features, parts)
    return { http, requiresKey: keyRing.requiresKey, drain: lifecycle.drain }
  } catch (error) {
    await http.close()
    throw error
  }
}

async function createSharedParts(
  config: Config,
  address: RedisAddress,
  log: Logger,
  lifecycle: Lifecycle,
): Promise<SharedParts> {
  const { onStop, onClose } = lifecycle
  const keyRing = await openKeyRing(config.API_KEYS_FILE, log)
  onClose(keyRing.close)
  const budget = computeConnectionBudget(config, availableParallelism())
  const connections = createRedisConnections(config, address, budget, log)
  onClose(connections.close)
  const semaphore = createSemaphore(config.REDIS_MAX_CONCURRENT_OPS, maxWaitingOperations(config))
  const gateway = createRedisGateway(config, connections, semaphore)
  onClose(gateway.close)
  const keyspace = createKeyspace(config.QUEUE_PREFIX)
  const backendOf = createSharedBackends(keyspace, connections)
  const registry = createQueueRegistry({ keyspace, connections, gateway, backendOf })
  onClose(registry.close)
  const queueEvents = createQueueEvents({
    keyspace,
    maxQueues: config.EVENTS_MAX_QUEUES,
    connections,
    gateway,
    log,
    isUrgent: () => dispatcher.pendingCount() > 0,
  })
  onClose(queueEvents.close)
  const reader = createJobReader(registry, gateway)
  onClose(reader.close)
  const statusCache = createStatusCache(config, reader, queueEvents)
  onClose(statusCache.close)
  const waiters = createWaiters(statusCache, queueEvents)
  onStop(waiters.close)
  const scheduleNext = createSchedulerIteration(keyspace, backendOf, gateway, log)
  const workerCommands = createWorkerCommands({ keyspace, gateway, scheduleNext })
  const { MAX_STALLED_COUNT: maxStalledCount } = config
  const stalledRecovery = createStalledRecovery({ keyspace, gateway, maxStalledCount })
  onClose(stalledRecovery.close)
  const dispatcher = createDispatcher(workerCommands, queueEvents, stalledRecovery)
  onStop(dispatcher.close)
  return {
    version,
    config,
    log,
    lifecycle,
    secrets: parseSecrets(config.SECRET),
    keyRing,
    budget,
    connections,
    semaphore,
    gateway,
    keyspace,
    registry,
    queueEvents,
    statusCache,
    waiters,
    workerCommands,
    stalledRecovery,
    dispatcher,
    createBodyValidator: (schema) => createHttpValidator(schema, 'body'),
  }
}

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}

function createFeatures(
  definitions: readonly FeatureDefinition[],
  parts: SharedParts,
  { onStop, onClose }: Lifecycle,
): Feature[] {
  const features: Feature[] = []
  for (const { create } of definitions) {
    const feature = create(parts, [...features])
    if (feature.stop) onStop(feature.stop)
    if (feature.close) onClose(feature.close)
    features.push(feature)
  }
  return features
}

/** Starts the features once the service is ready to serve, and again each time Redis becomes usable. */
function startWhenReady(http: FastifyInstance, features: Feature[], { connections }: SharedParts): void {
  const start = () => {
    if (!connections.admin.ready) return
    for (const feature of features) feature.start?.()
  }
  connections.onChange(start)
  http.addHook('onReady', async () => start())
}
