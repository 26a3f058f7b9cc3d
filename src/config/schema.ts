/**
 * Every setting: its variable, type, bounds, default and meaning. The property's name is the variable's name, so
 * `.env.example` and the settings table are generated from here. load.ts reads them.
 */
import { type Static, Type } from 'typebox'
import { cacheSettings } from './cache-settings.ts'
import { httpSettings } from './http-settings.ts'
import { enqueueSettings, queueSettings, workerSettings } from './job-settings.ts'
import { processSettings } from './process-settings.ts'
import { redisSettings } from './redis-settings.ts'

export const ConfigSchema = Type.Object({
  ...processSettings,
  ...httpSettings,
  ...queueSettings,
  ...enqueueSettings,
  ...workerSettings,
  ...cacheSettings,
  ...redisSettings,
})

export type Config = Static<typeof ConfigSchema>

/** The same settings under headings, for generated documents. */
export const settingGroups = [
  { title: 'Process', settings: processSettings },
  { title: 'HTTP limits', settings: httpSettings },
  { title: 'Queues', settings: queueSettings },
  { title: 'Enqueueing', settings: enqueueSettings },
  { title: 'HTTP workers and webhooks', settings: workerSettings },
  { title: 'Cache (off when all CACHE_TTL_* are 0)', settings: cacheSettings },
  { title: 'Redis', settings: redisSettings },
]

/** Other names of settings, from the reports that docs/benchmarks.md describes. The main name wins when both are set. */
export const aliases: Record<string, keyof Config> = {
  REDIS_MAX_CONNECTIONS: 'REDIS_POOL_MAX_PER_WORKER',
  REDIS_WORKER_MAX_CONNECTIONS: 'REDIS_POOL_MAX_PER_WORKER',
  REDIS_WORKER_MAX_CONCURRENT_OPS: 'REDIS_MAX_CONCURRENT_OPS',
  REDIS_MAX_WAITING_CLIENTS: 'REDIS_MAX_WAITING',
}
