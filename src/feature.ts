/**
 * The interface of a feature: the definition that app.ts lists, the parts that all features share, and the routes, stats
 * and hooks that an instance may provide. Features do not import each other; two of them share code through a shared part.
 */
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { TSchema } from 'typebox'
import type { KeyRing } from './auth/key-ring.ts'
import type { CliCommand } from './cli/cli-command.ts'
import { ConfigError } from './config/load.ts'
import type { Config } from './config/schema.ts'
import type { Dispatcher } from './dispatch/dispatcher.ts'
import type { StalledRecovery } from './dispatch/stalled-recovery.ts'
import type { WorkerCommands } from './dispatch/worker-commands.ts'
import type { QueueEvents } from './events/queue-events.ts'
import type { JobReader } from './jobs/status/job-reader.ts'
import type { StatusCache } from './jobs/status/status-cache.ts'
import type { Waiters } from './jobs/status/waiting/waiters.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { PacedTurns } from './paced-turns.ts'
import type { QueueRegistry } from './queues/queue-registry.ts'
import type { ConnectionBudget } from './redis/connection/connection-budget.ts'
import type { RedisConnections } from './redis/connection/connections.ts'
import type { ByteBudget } from './redis/gateway/byte-budget.ts'
import type { RedisGateway } from './redis/gateway/redis-gateway.ts'
import type { Semaphore } from './redis/gateway/semaphore.ts'
import type { Keyspace } from './redis/keyspace.ts'
import type { RedisClock } from './redis/redis-clock.ts'

/** The parts that features share. A part sends no Redis command until a feature uses it. */
export interface SharedParts {
  /** Version of this service. */
  version: string
  config: Config
  log: Logger
  lifecycle: Pick<Lifecycle, 'isDraining'>
  /** SECRET, parsed: the first seals, all of them open. */
  secrets: [string, ...string[]]
  keyRing: KeyRing
  budget: ConnectionBudget
  connections: RedisConnections
  semaphore: Semaphore
  gateway: RedisGateway
  redisClock: RedisClock
  /** Bounds the bytes of large reads, of all features together. */
  byteBudget: ByteBudget
  /** Paces the work on large values, of all features together. */
  turns: PacedTurns
  keyspace: Keyspace
  registry: QueueRegistry
  queueEvents: QueueEvents
  jobReader: JobReader
  statusCache: StatusCache
  waiters: Waiters
  workerCommands: WorkerCommands
  stalledRecovery: StalledRecovery
  dispatcher: Dispatcher
  /** A validator that Fastify accepts, for a route that validates its body with a schema of its own. */
  createBodyValidator(schema: TSchema): (value: unknown) => { value: unknown } | { error: Error }
}

export interface FeatureDefinition {
  /** The name by which FEATURES_DISABLED leaves it out. */
  name: string
  /** Whether FEATURES_DISABLED may leave it out. */
  isOptional: boolean
  /** Whether its routes respond with event streams, which need a heartbeat timer. */
  usesEventStreams?: boolean
  /** For the command line to come, whether or not the feature is enabled. */
  commands?: readonly CliCommand[]
  /** `earlier`: the enabled features listed before this one, for a feature that reports on the others. */
  create(parts: SharedParts, earlier: readonly Feature[]): Feature
}

export interface Feature {
  /** Registers its routes. */
  routes?(http: FastifyInstance): Promise<void>
  /** Redis became usable: called each time, so it must be idempotent. */
  start?(): void
  /** Called before the listener closes, to resolve the requests that wait. Later calls of `start` must do nothing. */
  stop?(): Promise<void> | void
  /** Called after the last request, while the shared parts are still open. */
  close?(): Promise<void> | void
  /** Properties of GET /stats, by name. */
  stats?: Readonly<Record<string, FeatureStat>>
  /** For a metrics route. No feature provides or reads metrics yet. */
  metrics?(): Metric[]
  /** What an operator should do, for the health routes. Must not ask Redis. */
  advice?(): Advice[]
}

export interface FeatureStat {
  /** Schema of the value, with its description. */
  schema: TSchema
  /** Must not ask Redis. */
  read(): unknown
  /** Whether it is a property of GET /health as well. */
  isInHealth?: boolean
  /** Properties of the value that are records by queue name: a caller sees only the queues that its key may see. */
  keyedByQueue?: readonly string[]
  /** Properties that are records by id of the API key: the key of a caller that is limited to some queues sees only itself. */
  keyedByKey?: readonly string[]
}

export interface Metric {
  /** As Prometheus writes it, with the unit last: `sluice_deliveries_total`. */
  name: string
  help: string
  type: 'counter' | 'gauge'
  samples: { labels: Readonly<Record<string, string>>; value: number }[]
}

export interface Advice {
  /** `fail`: jobs are not accepted. `warn`: jobs may soon be refused, or the service works less well than it could. */
  level: 'fail' | 'warn'
  sentence: string
  /** The queue that the sentence names; a caller whose key may not see that queue does not get the advice. */
  queue?: string
  /** The sentence quotes a text that may name queues, keys or addresses: only a key for all queues gets it. */
  quotesText?: boolean
}

/** The definitions that `disabled` (FEATURES_DISABLED) leaves in. Throws a ConfigError for a name that cannot be left out. */
export function selectFeatures(
  definitions: readonly FeatureDefinition[],
  disabled: string,
): readonly FeatureDefinition[] {
  const names = disabled
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
  const optional = definitions.filter(({ isOptional }) => isOptional).map(({ name }) => name)
  const problems = names
    .filter((name) => !optional.includes(name))
    .map((name) => {
      const isRequired = definitions.some((definition) => definition.name === name)
      const problem = isRequired ? `${name} cannot be disabled` : `there is no feature ${name}`
      return `FEATURES_DISABLED: ${problem}. Choose from: ${optional.join(', ')}`
    })
  if (problems.length > 0) throw new ConfigError(problems)
  return definitions.filter(({ name }) => !names.includes(name))
}
