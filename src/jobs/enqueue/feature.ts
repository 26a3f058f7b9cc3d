/** The feature `enqueue`: POST /jobs and POST /jobs/batch. Required. */
import { Type } from 'typebox'
import type { Config } from '../../config/schema.ts'
import type { FeatureDefinition, FeatureStat } from '../../feature.ts'
import { byQueue } from '../../queues/schemas.ts'
import { createMemoryGuard } from '../../redis/gateway/memory-guard.ts'
import type { RedisGateway } from '../../redis/gateway/redis-gateway.ts'
import { type Confirm, createReplication } from '../../redis/gateway/replication.ts'
import { createAddAndWait } from './add-and-wait.ts'
import { createAddBatch } from './add-batch.ts'
import { createEnqueuer, type Enqueuer } from './enqueuer.ts'
import { jobRoutes } from './routes.ts'
import { batchEnvelope } from './schemas.ts'
import { createToNewJob } from './to-new-job.ts'

export const enqueueFeature: FeatureDefinition = {
  name: 'enqueue',
  isOptional: false,
  create({
    config,
    keyspace,
    registry,
    gateway,
    redisClock,
    statusCache,
    waiters,
    dispatcher,
    createBodyValidator,
  }) {
    const { admit } = createMemoryGuard(config.REDIS_MEMORY_WATERMARK, gateway)
    const enqueuer = createEnqueuer({
      config,
      keyspace,
      registry,
      gateway,
      admit,
      confirm: createConfirm(config, gateway),
      onWrite: statusCache.forget,
      onStored: dispatcher.notify,
      clock: redisClock,
    })
    const toNewJob = createToNewJob(config.DEFAULT_QUEUE, keyspace)
    return {
      async routes(http) {
        await http.register(jobRoutes, {
          config,
          enqueuer,
          toNewJob,
          addAndWait: createAddAndWait(enqueuer, waiters),
          addBatch: createAddBatch(enqueuer, toNewJob),
          batchValidator: createBodyValidator(batchEnvelope(config.BATCH_MAX_ITEMS)),
        })
      },
      close: enqueuer.close,
      stats: { batching: batchingStat(enqueuer) },
    }
  },
}

/** `undefined`: the master alone acknowledges a job. */
function createConfirm(config: Config, gateway: RedisGateway): Confirm | undefined {
  if (config.DURABILITY_REPLICAS === 0) return undefined
  const count = () => gateway.count('confirm', 1)
  return createReplication(config.DURABILITY_REPLICAS, config.DURABILITY_TIMEOUT, count)
}

const Batching = Type.Object(
  {
    activeBatches: Type.Integer({ description: 'Batches that are open or in flight to Redis.' }),
    totalQueuedJobs: Type.Integer({ description: 'Jobs that wait to be sent to Redis.' }),
    batchesByType: byQueue(Type.Integer(), 'Jobs that wait or are in flight, by queue.'),
    batchesSent: Type.Integer({ description: 'Batches sent since the start of this process.' }),
    jobsSent: Type.Integer({ description: 'Jobs sent since the start of this process.' }),
    meanBatchSize: Type.Number({ description: 'Mean number of jobs per batch, and so per Redis command.' }),
  },
  { title: 'BatchingStats' },
)

function batchingStat(enqueuer: Enqueuer): FeatureStat {
  return { schema: Batching, read: enqueuer.stats, isInHealth: true, keyedByQueue: ['batchesByType'] }
}
