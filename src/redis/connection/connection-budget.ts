/**
 * How many Redis connections this process may hold, from what the provider allows. Pure arithmetic, after two field
 * reports: (limit − reserve) is shared by the replicas; and no more sockets than concurrent operations + 20 are ever
 * of use, since it is the semaphore that protects Redis, not the size of a pool.
 */
import type { Config } from '../../config/schema.ts'

/** Sockets beyond one per concurrent operation that could ever be useful: admin, subscriptions and a margin. */
const OVERHEAD = 20
const DEVELOPMENT_MAX = 50

export interface ConnectionBudget {
  providerLimit: number
  reserved: number
  /** What all replicas may hold together. */
  usable: number
  replicas: number
  /** What this process may hold. Opening one more is refused, never tried. */
  perProcess: number
  /** What this process opens: the command connections, the admin one, the one for events, and one for durable writes. */
  wanted: number
  /** Concurrent operations + 20: more could not be used at once. */
  usefulMax: number
}

export function computeConnectionBudget(config: Config, cpus: number): ConnectionBudget {
  const usable =
    config.REDIS_POOL_ABSOLUTE_MAX ?? config.REDIS_PROVIDER_LIMIT - config.REDIS_RESERVED_CONNECTIONS
  const replicas = config.REPLICAS ?? Math.max(1, cpus)
  const share = Math.floor(usable / replicas)
  const production = config.NODE_ENV === 'production'
  const perProcess =
    config.REDIS_POOL_MAX_PER_WORKER ?? (production ? share : Math.min(DEVELOPMENT_MAX, share))
  return {
    providerLimit: config.REDIS_PROVIDER_LIMIT,
    reserved: config.REDIS_RESERVED_CONNECTIONS,
    usable,
    replicas,
    perProcess: Math.min(perProcess, usable),
    wanted: config.REDIS_POOL_SIZE + (config.DURABILITY_REPLICAS > 0 ? 3 : 2),
    usefulMax: config.REDIS_MAX_CONCURRENT_OPS + OVERHEAD,
  }
}

export function maxWaitingOperations(config: Config): number {
  return config.REDIS_MAX_WAITING ?? (config.NODE_ENV === 'production' ? 5_000 : 200)
}
