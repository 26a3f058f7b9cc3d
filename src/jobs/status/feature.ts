/** The feature `status`: GET /jobs/:id and GET /jobs. Required. The cache and the waiters themselves are shared parts. */
import { type Static, Type } from 'typebox'
import type { Advice, FeatureDefinition } from '../../feature.ts'
import type { ByteBudgetStats } from '../../redis/gateway/byte-budget.ts'
import { createGetMany } from './get-many.ts'
import { createJobLister } from './job-lister.ts'
import type { JobReaderStats } from './job-reader.ts'
import { statusRoutes } from './routes.ts'

export const statusFeature: FeatureDefinition = {
  name: 'status',
  isOptional: false,
  create: ({
    config,
    registry,
    gateway,
    redisClock,
    byteBudget,
    turns,
    jobReader,
    statusCache,
    waiters,
  }) => ({
    async routes(http) {
      await http.register(statusRoutes, {
        defaultQueue: config.DEFAULT_QUEUE,
        statusCache,
        waiters,
        getMany: createGetMany(statusCache, byteBudget, turns),
        jobLister: createJobLister({
          registry,
          gateway,
          byteBudget,
          turns,
          maxBytes: config.MAX_ANSWER_BYTES,
        }),
        clock: redisClock,
      })
    },
    stats: {
      cache: { schema: Cache, read: statusCache.stats, isInHealth: true },
      waiting: { schema: Waiting, read: waiters.count },
      reads: { schema: Reads, read: () => readsOf(byteBudget.stats(), jobReader.stats()) },
    },
    advice: () => adviseOnCache(statusCache.stats().enabled),
  }),
}

export function adviseOnCache(isEnabled: boolean): Advice[] {
  if (isEnabled) return []
  const sentence = 'The cache is off (all CACHE_TTL_* are 0): every status read is a Redis command.'
  return [{ level: 'warn', sentence }]
}

function readsOf(budget: ByteBudgetStats, reader: JobReaderStats): Static<typeof Reads> {
  const { maxBytes, bytesInUse, waiting, maxWaiting, refused } = budget
  return { maxBytes, bytesInUse, waiting, maxWaiting, refused, large: reader.large, omitted: reader.omitted }
}

/** The properties of `ByteBudgetStats` in byte-budget.ts and of `JobReaderStats` in job-reader.ts. */
const Reads = Type.Object(
  {
    maxBytes: Type.Integer({ description: 'READ_MAX_BYTES.' }),
    bytesInUse: Type.Integer({ description: 'Bytes that large reads hold now.' }),
    waiting: Type.Integer({ description: 'Large reads that wait for others.' }),
    maxWaiting: Type.Integer({ description: 'READ_MAX_WAITING.' }),
    refused: Type.Integer({ description: 'Large reads refused with OVERLOADED since the start.' }),
    large: Type.Integer({ description: 'Jobs that were too large for a small reply of Redis.' }),
    omitted: Type.Integer({
      description: 'Jobs read without some of their fields, because of MAX_ANSWER_BYTES.',
    }),
  },
  { title: 'ReadStats' },
)

const Waiting = Type.Integer({ description: 'Requests that wait for their job to finish or to change.' })

/** The properties of `CacheStats` in status-cache.ts. */
const Cache = Type.Object(
  {
    totalEntries: Type.Integer({ description: 'Statuses in memory.' }),
    validEntries: Type.Integer({ description: 'Statuses that may be served.' }),
    expiredEntries: Type.Integer({
      description: 'Expired statuses, kept to be served while Redis is unavailable.',
    }),
    hitRatio: Type.Number({ description: 'Hits per lookup since the start, 0 to 1.' }),
    hits: Type.Integer({ description: 'Lookups served from memory.' }),
    misses: Type.Integer({ description: 'Lookups that had to read Redis.' }),
    bytes: Type.Integer({ description: 'Memory in use, bytes, estimated.' }),
    maxBytes: Type.Integer({ description: 'CACHE_MAX_BYTES.' }),
    enabled: Type.Boolean({ description: 'False while all CACHE_TTL_* are 0.' }),
  },
  { title: 'CacheStats' },
)
