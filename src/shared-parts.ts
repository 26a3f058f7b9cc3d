/**
 * Creates what the features share, in order. Each long-lived part registers its end on the line after it is created. Nothing
 * listens yet, and Redis may be unavailable.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { Logger } from 'pino'
import { openKeyRing } from './auth/key-ring.ts'
import type { Config } from './config/schema.ts'
import { parseSecrets } from './config/secret.ts'
import { createDispatcher } from './dispatch/dispatcher.ts'
import { createSchedulerIteration } from './dispatch/scheduler-iteration.ts'
import { createStalledRecovery } from './dispatch/stalled-recovery.ts'
import { createWorkerCommands } from './dispatch/worker-commands.ts'
import { createQueueEvents } from './events/queue-events.ts'
import type { SharedParts } from './feature.ts'
import { createHttpValidator } from './http/request-validation.ts'
import { createJobReader } from './jobs/status/job-reader.ts'
import { createStatusCache } from './jobs/status/status-cache.ts'
import { createWaiters } from './jobs/status/waiting/waiters.ts'
import type { Lifecycle } from './lifecycle.ts'
import { createPacedTurns } from './paced-turns.ts'
import { createQueueRegistry } from './queues/queue-registry.ts'
import { createSharedBackends } from './queues/shared-backend.ts'
import { computeConnectionBudget, maxWaitingOperations } from './redis/connection/connection-budget.ts'
import { createRedisConnections } from './redis/connection/connections.ts'
import type { RedisAddress } from './redis/connection/redis-address.ts'
import { createByteBudget } from './redis/gateway/byte-budget.ts'
import { createRedisGateway, type RedisOperation } from './redis/gateway/redis-gateway.ts'
import { createSemaphore } from './redis/gateway/semaphore.ts'
import { createKeyspace } from './redis/keyspace.ts'
import { createRedisClock } from './redis/redis-clock.ts'

const READ_TIME: RedisOperation = { label: 'time', priority: 'settle', isWrite: false, commands: 1 }

export async function createSharedParts(
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
  const redisClock = createRedisClock(() => gateway.onAdmin(READ_TIME, (client) => client.time()))
  connections.onChange(() => {
    if (connections.admin.ready) redisClock.sync()
  })
  const keyspace = createKeyspace(config.QUEUE_PREFIX)
  const backendOf = createSharedBackends(keyspace, connections)
  const { KNOWN_QUEUES_MAX: maxKnown, KNOWN_QUEUES_IDLE: idleMs } = config
  const registry = createQueueRegistry({ keyspace, connections, gateway, backendOf, maxKnown, idleMs })
  onClose(registry.close)
  const queueEvents = createQueueEvents({
    keyspace,
    maxQueues: config.EVENTS_MAX_QUEUES,
    replyBytesMax: config.MAX_ANSWER_BYTES,
    connections,
    gateway,
    log,
    isUrgent: () => dispatcher.pendingCount() > 0,
  })
  onClose(queueEvents.close)
  const byteBudget = createByteBudget(config.READ_MAX_BYTES, config.READ_MAX_WAITING)
  const turns = createPacedTurns()
  onStop(turns.close)
  const jobReader = createJobReader({
    registry,
    gateway,
    byteBudget,
    turns,
    maxBytes: config.MAX_ANSWER_BYTES,
  })
  onClose(jobReader.close)
  const statusCache = createStatusCache(config, jobReader, queueEvents)
  onClose(statusCache.close)
  const waiters = createWaiters(statusCache, queueEvents)
  onStop(waiters.close)
  const scheduleNext = createSchedulerIteration(keyspace, backendOf, gateway)
  const answerBytesMax = config.MAX_ANSWER_BYTES
  const workerCommands = createWorkerCommands({
    keyspace,
    gateway,
    scheduleNext,
    clock: redisClock,
    answerBytesMax,
    log,
  })
  const { MAX_STALLED_COUNT: maxStalledCount } = config
  const stalledRecovery = createStalledRecovery({ keyspace, gateway, maxStalledCount, clock: redisClock })
  onClose(stalledRecovery.close)
  const dispatcher = createDispatcher(workerCommands, queueEvents, stalledRecovery, redisClock)
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
    redisClock,
    byteBudget,
    turns,
    keyspace,
    registry,
    queueEvents,
    jobReader,
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
