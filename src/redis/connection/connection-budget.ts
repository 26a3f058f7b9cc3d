/**
 * Computes how many Redis connections this process may open: the replicas share the provider's limit minus a
 * reserve. More sockets than concurrent operations + 20 are never useful, because the semaphore, not the
 * pool, bounds the load on Redis.
 */
import type { Config } from '../../config/schema.ts'

/** Useful sockets beyond one per concurrent operation: admin, events and a margin. */
const OVERHEAD = 20
const DEVELOPMENT_MAX = 50

export interface ConnectionBudget {
  providerLimit: number
  reserved: number
  /** Connections that all replicas together may open. */
  usable: number
  replicas: number
  /** Connections that this process may open. */
  perProcess: number
  /**
   * Connections that this process opens: the command pool, admin, events, and one for durable writes if
   * configured.
   */
  wanted: number
  /** Concurrent operations + 20. */
  usefulMax: number
}

export function computeConnectionBudget(config: Config, cpus: number): ConnectionBudget {
  const usable =
    config.REDIS_POOL_ABSOLUTE_MAX ?? config.REDIS_PROVIDER_LIMIT - config.REDIS_RESERVED_CONNECTIONS
  const replicas = config.REPLICAS ?? Math.max(1, cpus)
  const perReplica = Math.floor(usable / replicas)
  const production = config.NODE_ENV === 'production'
  const perProcess =
    config.REDIS_POOL_MAX_PER_WORKER ?? (production ? perReplica : Math.min(DEVELOPMENT_MAX, perReplica))
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

/** How many operations may wait for a permit of the semaphore. */
export function maxWaitingOperations(config: Config): number {
  return config.REDIS_MAX_WAITING ?? (config.NODE_ENV === 'production' ? 5_000 : 200)
}
