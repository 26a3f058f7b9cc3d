/**
 * The table of contents: everything is made here, by hand, in order, and each thing's end stands on the line after it.
 * `close` runs the ends in reverse, which is the whole of a graceful shutdown.
 */

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { openKeyRing } from './auth/key-ring.ts'
import type { Config } from './config/schema.ts'
import { createDispatcher } from './dispatch/dispatcher.ts'
import { createSchedulerIteration } from './dispatch/scheduler-iteration.ts'
import { createStalledRecovery } from './dispatch/stalled-recovery.ts'
import { createWorkerCommands } from './dispatch/worker-commands.ts'
import { createEventFollower } from './events/event-follower.ts'
import { createEventHistory } from './events/event-history.ts'
import { createQueueEvents } from './events/queue-events.ts'
import { createHealth } from './health/health.ts'
import { healthRoutes } from './health/routes.ts'
import { authenticationPlugin } from './http/authentication.ts'
import { eventStreamPlugin } from './http/event-stream.ts'
import { gracefulClosePlugin } from './http/graceful-close.ts'
import { jsonBodyPlugin } from './http/json-body.ts'
import { openapiPlugin } from './http/openapi.ts'
import { pressurePlugin } from './http/pressure.ts'
import { answerClientError, createFrameworkErrorHandler, problemPlugin } from './http/problem.ts'
import { rateLimitPlugin } from './http/rate-limit.ts'
import { createRequestIds, requestLoggingPlugin } from './http/request-logging.ts'
import { createHttpValidator, requestValidationPlugin } from './http/request-validation.ts'
import { routeContractPlugin } from './http/route-contract.ts'
import { createAddAndWait } from './jobs/enqueue/add-and-wait.ts'
import { createAddBatch } from './jobs/enqueue/add-batch.ts'
import { createEnqueuer } from './jobs/enqueue/enqueuer.ts'
import { type NewJob, noOptions } from './jobs/enqueue/new-job.ts'
import { jobRoutes } from './jobs/enqueue/routes.ts'
import { batchEnvelope, type NewJobBody } from './jobs/enqueue/schemas.ts'
import { jobEventRoutes } from './jobs/status/event-routes.ts'
import { createGetMany } from './jobs/status/get-many.ts'
import { createJobLister } from './jobs/status/job-lister.ts'
import { createJobReader } from './jobs/status/job-reader.ts'
import { statusRoutes } from './jobs/status/routes.ts'
import { createStatusCache } from './jobs/status/status-cache.ts'
import { createWaiters } from './jobs/status/waiters.ts'
import { createLeaseRenderer } from './leases/lease-response.ts'
import { createLeaseSettler } from './leases/lease-settler.ts'
import { createLeaseSealer } from './leases/lease-token.ts'
import { leaseRoutes } from './leases/routes.ts'
import { createQueueRegistry } from './queues/queue-registry.ts'
import { queueRoutes } from './queues/routes.ts'
import { createSharedBackends } from './queues/shared-backend.ts'
import { computeConnectionBudget, maxWaitingOperations } from './redis/connection/connection-budget.ts'
import { createRedisConnections } from './redis/connection/connections.ts'
import type { RedisAddress } from './redis/connection/redis-address.ts'
import { createMemoryGuard } from './redis/gateway/memory-guard.ts'
import { createRedisGateway, type RedisGateway } from './redis/gateway/redis-gateway.ts'
import { type Confirm, createReplication } from './redis/gateway/replication.ts'
import { createSemaphore } from './redis/gateway/semaphore.ts'
import { createKeyspace } from './redis/keyspace.ts'
import { createAddressGuard } from './webhooks/delivery/address-guard.ts'
import { createWebhookClient } from './webhooks/delivery/webhook-client.ts'
import { webhookRoutes } from './webhooks/subscriptions/routes.ts'
import { createVault } from './webhooks/subscriptions/secret-vault.ts'
import { createSubscriptionCheck } from './webhooks/subscriptions/subscription-check.ts'
import { createSubscriptionManager } from './webhooks/subscriptions/subscription-manager.ts'
import { createSubscriptionStore } from './webhooks/subscriptions/subscription-store.ts'

export const version = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version

export interface App {
  http: FastifyInstance
  /** Whether there are API keys, so that the door may stand open to other machines. */
  requiresKey(): boolean
  /** From now on `/health/ready` says 503; all else is served. */
  drain(): void
}

/** Builds the service; nothing listens yet. `address`: where Redis is. Boots also while Redis is away. */
export async function createApp(config: Config, address: RedisAddress, log: Logger): Promise<App> {
  const http = createHttp(config, failureLogOf(config, log))
  try {
    return await assemble(http, config, address, log)
  } catch (error) {
    // What was begun before it failed has its end.
    await http.close()
    throw error
  }
}

async function assemble(
  http: FastifyInstance,
  config: Config,
  address: RedisAddress,
  log: Logger,
): Promise<App> {
  const keyRing = await openKeyRing(config.API_KEYS_FILE, log)
  http.addHook('onClose', async () => keyRing.close())
  const budget = computeConnectionBudget(config, availableParallelism())
  const connections = createRedisConnections(config, address, budget, log)
  http.addHook('onClose', () => connections.close())
  const semaphore = createSemaphore(config.REDIS_MAX_CONCURRENT_OPS, maxWaitingOperations(config))
  const gateway = createRedisGateway(config, connections, semaphore)
  http.addHook('onClose', async () => gateway.close())
  const keyspace = createKeyspace(config.QUEUE_PREFIX)
  const backendOf = createSharedBackends(keyspace, connections)
  const registry = createQueueRegistry({ keyspace, connections, gateway, backendOf })
  http.addHook('onClose', () => registry.close())

  const events = createQueueEvents({
    ...{ keyspace, maxQueues: config.EVENTS_MAX_QUEUES },
    ...{ connections, gateway, log },
    isUrgent: () => line.pendingCount() > 0,
  })
  http.addHook('onClose', () => events.close())

  const reader = createJobReader(registry, gateway)
  http.addHook('onClose', () => reader.close())
  const statusCache = createStatusCache(config, reader, events)
  http.addHook('onClose', async () => statusCache.close())
  const waiters = createWaiters(statusCache, events)
  // Before the listener closes, since it waits for the requests that wait.
  http.addHook('preClose', () => waiters.close())
  const scheduleNext = createSchedulerIteration(keyspace, backendOf, gateway, log)
  const work = createWorkerCommands({ keyspace, gateway, scheduleNext })
  const stalled = createStalledRecovery({ keyspace, gateway, maxStalledCount: config.MAX_STALLED_COUNT })
  http.addHook('onClose', async () => stalled.close())
  const line = createDispatcher(work, events, stalled)
  const { admit } = createMemoryGuard(config.REDIS_MEMORY_WATERMARK, gateway)
  const confirm = createConfirm(config, gateway)
  const enqueuer = createEnqueuer({
    ...{ config, keyspace, registry, gateway, admit, confirm },
    onWrite: statusCache.forget,
    onStored: line.notify,
  })
  http.addHook('onClose', () => enqueuer.close())
  const secrets = secretsOf(config)
  const sealer = createLeaseSealer(secrets)
  const settler = createLeaseSettler({ commands: work, dispatcher: line, sealer, onWrite: statusCache.forget })
  const guard = createAddressGuard(config.WEBHOOK_ALLOW_CIDRS.split(',').filter((cidr) => cidr !== ''))
  const sender = createWebhookClient({ guard, maxResponseBytes: config.WEBHOOK_MAX_RESPONSE })
  http.addHook('onClose', () => sender.close())
  const push = createSubscriptionManager({
    ...{
      keyspace,
      dispatcher: line,
      webhookClient: sender,
      log,
      store: createSubscriptionStore(keyspace, gateway),
      vault: createVault(secrets),
    },
    ...{ onLeased: stalled.noteLeased, onWrite: statusCache.forget },
    maxInFlight: config.WEBHOOK_MAX_IN_FLIGHT,
    pauseAfterMs: config.WEBHOOK_PAUSE_AFTER,
    graceMs: config.SHUTDOWN_TIMEOUT / 2,
    hasOthers: budget.replicas > 1,
  })
  // As with those who wait for a job; what is on its way to a receiver ends meanwhile.
  http.addHook('preClose', async () => {
    const stopped = push.stop()
    line.close()
    await stopped
  })
  const health = createHealth({
    ...{ version, budget, connections, semaphore, gateway, registry },
    eventsStats: events.stats,
    waiting: waiters.count,
    waitingWorkers: line.pendingCount,
    pushStats: push.stats,
    pushTroubles: push.troubles,
    cacheStats: statusCache.stats,
    batchStats: enqueuer.stats,
    replicasWanted: config.DURABILITY_REPLICAS,
    keyRing,
  })

  await http.register(problemPlugin, { log: failureLogOf(config, log) })
  await http.register(routeContractPlugin)
  await http.register(requestLoggingPlugin, { log: config.LOG_REQUESTS === 'all' ? log : undefined })
  await http.register(pressurePlugin, { maxEventLoopDelayMs: config.MAX_EVENT_LOOP_DELAY })
  await http.register(authenticationPlugin, { keyRing })
  await http.register(rateLimitPlugin)
  await http.register(jsonBodyPlugin)
  await http.register(requestValidationPlugin)
  await http.register(openapiPlugin, { version })
  await http.register(eventStreamPlugin, {
    heartbeatMs: config.SSE_HEARTBEAT,
    maxBufferedBytes: config.SSE_MAX_BUFFERED,
  })
  await http.register(gracefulClosePlugin)

  const toNewJob = (
    { queue = config.DEFAULT_QUEUE, name, data = {}, opts = noOptions }: NewJobBody,
    idempotency?: NewJob['idempotency'],
  ) => ({ queue, name, data, opts, idempotency }) as NewJob
  const { DEFAULT_QUEUE: defaultQueue } = config
  await http.register(jobRoutes, {
    ...{ config, enqueuer, toNewJob },
    addAndWait: createAddAndWait(enqueuer, waiters),
    addBatch: createAddBatch(enqueuer, toNewJob),
    batchValidator: createHttpValidator(batchEnvelope(config.BATCH_MAX_ITEMS), 'body'),
  })
  await http.register(statusRoutes, {
    ...{ defaultQueue, statusCache, waiters },
    getMany: createGetMany(statusCache),
    jobLister: createJobLister(registry, gateway),
  })
  const follower = createEventFollower(events, createEventHistory(keyspace, gateway))
  await http.register(jobEventRoutes, { defaultQueue, statusCache, follower })
  await http.register(queueRoutes, { registry, follower })
  await http.register(leaseRoutes, {
    dispatcher: line,
    settler,
    renderLease: createLeaseRenderer(sealer, stalled.noteLeased),
  })
  await http.register(webhookRoutes, { push, check: createSubscriptionCheck(guard) })
  await http.register(healthRoutes, { health, summaryTtlMs: config.HEALTH_TTL })

  const startPush = () => {
    if (connections.admin.ready) push.start()
  }
  connections.onChange(startPush)
  http.addHook('onReady', async () => startPush())

  return { http, requiresKey: keyRing.requiresKey, drain: health.drain }
}

/** The first one seals. Without any, as in tests, one for the life of this process. */
function secretsOf({ SECRET }: Config): [string, ...string[]] {
  const [first = randomBytes(32).toString('base64url'), ...others] = SECRET?.split(',') ?? []
  return [first, ...others]
}

/** Where requests that failed are told; `undefined`: nowhere. */
function failureLogOf(config: Config, log: Logger): Logger | undefined {
  return config.LOG_REQUESTS === 'none' ? undefined : log
}

/** `undefined`: nobody but the master has to have a job. */
function createConfirm(config: Config, gateway: RedisGateway): Confirm | undefined {
  if (config.DURABILITY_REPLICAS === 0) return undefined
  const count = () => gateway.count('confirm', 1)
  return createReplication(config.DURABILITY_REPLICAS, config.DURABILITY_TIMEOUT, count)
}

/** Room for 200 generated ids in a URL (GET /jobs?ids=). */
const MAX_HEADER_BYTES = 16_384

function createHttp(config: Config, failureLog: Logger | undefined): FastifyInstance {
  const http = Fastify({
    // Fastify's own logging listens to every response. Failures are logged by http/problem.ts, the rest only if wanted.
    logger: false,
    genReqId: createRequestIds(),
    bodyLimit: config.BODY_LIMIT,
    requestTimeout: config.REQUEST_TIMEOUT,
    http: {
      headersTimeout: Math.min(5_000, config.REQUEST_TIMEOUT),
      maxHeaderSize: MAX_HEADER_BYTES,
      // Node looks for slow senders every 30 s by itself, so that a timeout of 5 s would be one of 35.
      connectionsCheckingInterval: 500,
    },
    routerOptions: { maxParamLength: 700 },
    clientErrorHandler: answerClientError,
    frameworkErrors: createFrameworkErrorHandler(failureLog),
    // A request that is already here is answered; the listener takes no more.
    return503OnClosing: false,
    // http/closing.ts does, without cutting off what is on its way.
    forceCloseConnections: false,
  })
  http.server.maxConnections =
    config.MAX_CONNECTIONS === 0 ? Number.POSITIVE_INFINITY : config.MAX_CONNECTIONS
  return http
}
