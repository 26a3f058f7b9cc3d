/** Advice in sentences, from what health has measured. Pure, so that every sentence has a test. */

import type { JobState } from '../bullmq/job-states.ts'
import type { EventsStats } from '../events/queue-events.ts'
import type { ConnectionBudget } from '../redis/connection/connection-budget.ts'
import type { ConnectionStats } from '../redis/connection/connections.ts'
import { isSupported, type ServerInfo } from '../redis/connection/server-info.ts'
import type { SemaphoreStats } from '../redis/gateway/semaphore.ts'

export interface HealthInputs {
  /** `undefined`: Redis could not be asked; `redisError` says why. */
  server: ServerInfo | undefined
  redisError: string | undefined
  budget: ConnectionBudget
  pool: ConnectionStats
  semaphore: SemaphoreStats
  events: Pick<EventsStats, 'status' | 'reason' | 'lagMs'>
  queues: Record<string, Record<JobState, number>>
  /** Queues that could not be counted. */
  uncounted: string[]
  cacheEnabled: boolean
  /** Replicas that must confirm a job. */
  replicasWanted: number
  /** Why the API keys could not be read anew. */
  keysProblem: string | undefined
  /** Subscriptions that send nothing, or not well, and why. */
  subscriptions: { queue: string; reason: string }[]
}

export interface Advice {
  /** `fail`: it does not work. `warn`: it will not for long, or not as one may think. */
  level: 'fail' | 'warn'
  sentence: string
  /** The queue that it names; whoever may not see that queue is not told. */
  queue?: string
}

/** Redis nearly full: BullMQ's workers cannot even take jobs at maxmemory, since their scripts write. */
const MEMORY_WATERMARK = 0.8
/** A change is promised to show within this. */
const MAX_LAG_MS = 100
const MANY_FAILED = 100
const MANY_WAITING = 1_000

export function recommend(situation: HealthInputs): Advice[] {
  return [
    ...onRedis(situation),
    ...onReplicas(situation),
    ...onConnections(situation),
    ...onEvents(situation),
    ...onQueues(situation),
    ...onKeys(situation),
    ...onSubscriptions(situation),
  ]
}

function onRedis({ server, redisError, pool }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  const warn = (sentence: string) => advice.push({ level: 'warn', sentence })
  if (!server)
    advice.push({
      level: 'fail',
      sentence: `Redis does not answer (${redisError}). Check REDIS_URL and the server.`,
    })
  if (pool.lastLimitError) {
    warn(
      `The provider refused commands with "${pool.lastLimitError}". Raise the plan's limit, or lower REPLICAS, ` +
        'REDIS_POOL_SIZE and the number of clients that connect to Redis themselves.',
    )
  }
  if (!server) return advice
  if (!isSupported(server.version)) warn(`Redis ${server.version} is too old: 6.2 or later is needed.`)
  if (server.role !== 'master') {
    advice.push({
      level: 'fail',
      sentence: `Redis is a ${server.role}: it takes no jobs. Point REDIS_URL at the master.`,
    })
  }
  if (server.loading) advice.push({ level: 'fail', sentence: 'Redis is loading its data. This passes.' })
  if (server.evictionPolicy !== 'noeviction') {
    warn(`maxmemory-policy is ${server.evictionPolicy}: Redis may throw out jobs. Set it to noeviction.`)
  }
  if (server.maxMemoryBytes > 0 && server.usedMemoryBytes >= MEMORY_WATERMARK * server.maxMemoryBytes) {
    const percent = Math.round((server.usedMemoryBytes / server.maxMemoryBytes) * 100)
    warn(
      `Redis uses ${percent} % of maxmemory. Let workers drain the queues, keep finished jobs for less long, or raise it.`,
    )
  }
  if (server.durability.mode !== 'appendfsync always') {
    warn(`${server.durability.meaning} Set appendonly yes and appendfsync always if no job may be lost.`)
  }
  return advice
}

function onReplicas({ server, replicasWanted }: HealthInputs): Advice[] {
  if (!server || server.replicas >= replicasWanted) return []
  const sentence =
    `DURABILITY_REPLICAS is ${replicasWanted} and Redis has ${server.replicas}: no job is acknowledged. ` +
    'Bring the replicas back, or lower it.'
  return [{ level: 'fail', sentence }]
}

function onKeys({ keysProblem }: HealthInputs): Advice[] {
  return keysProblem === undefined ? [] : [{ level: 'warn', sentence: `${keysProblem}. Mend the file.` }]
}

function onConnections({ server, budget, pool, semaphore }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  const warn = (sentence: string) => advice.push({ level: 'warn', sentence })
  if (server?.maxClients && server.maxClients < budget.providerLimit) {
    warn(
      `Redis allows ${server.maxClients} connections, less than REDIS_PROVIDER_LIMIT (${budget.providerLimit}): ` +
        'the budget is larger than what is there. Set it to the real limit.',
    )
  }
  if (server?.maxClients && server.connectedClients > 0.9 * server.maxClients) {
    warn(
      `${server.connectedClients} of Redis' ${server.maxClients} connections are taken, ${pool.created} of them by this process.`,
    )
  }
  if (server && server.rejectedConnections > 0) {
    warn(
      `Redis has refused ${server.rejectedConnections} connections since its start: something opens too many.`,
    )
  }
  if (pool.created > budget.usefulMax) {
    warn(
      `REDIS_POOL_SIZE is larger than could ever be used: ${budget.usefulMax} (concurrent operations + 20) is enough.`,
    )
  }
  if (semaphore.refused > 0) {
    warn(
      `${semaphore.refused} operations were refused because ${semaphore.permits} were in flight and ${semaphore.maxWaiting} ` +
        'waited. Find what is slow in Redis first; then raise REDIS_MAX_CONCURRENT_OPS.',
    )
  }
  return advice
}

function onEvents({ server, events }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  const warn = (sentence: string) => advice.push({ level: 'warn', sentence })
  if (server && events.status === 'degraded') {
    warn(
      `Job events are not heard (${events.reason}): a status is served from memory for a second only, and every poll ` +
        'after that is a Redis command. It recovers by itself.',
    )
  } else if (events.lagMs > MAX_LAG_MS) {
    warn(
      `Job events were heard up to ${events.lagMs} ms late: this process or Redis is short of CPU, or the queues that are ` +
        'watched have more events than one reader takes. Add a replica, or lower EVENTS_MAX_QUEUES.',
    )
  }
  return advice
}

function onQueues({ queues, uncounted, cacheEnabled }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  const warn = (sentence: string, queue?: string) =>
    advice.push({ level: 'warn', sentence, ...(queue === undefined ? {} : { queue }) })
  for (const [name, counts] of Object.entries(queues)) {
    const waiting = counts.waiting + counts.prioritized
    if (waiting >= MANY_WAITING && counts.active === 0) {
      warn(
        `${waiting} jobs wait in ${name} and none is active: is a worker running, is the queue paused?`,
        name,
      )
    }
    if (counts.failed >= MANY_FAILED)
      warn(`${counts.failed} jobs of ${name} have failed. Look at one with GET /jobs/{id}.`, name)
  }
  for (const name of uncounted) {
    warn(
      `The jobs of ${name} could not be counted: something other than BullMQ may have written one of its keys.`,
      name,
    )
  }
  if (!cacheEnabled) warn('The cache is off (all CACHE_TTL_* are 0): every status read is a Redis command.')
  return advice
}

function onSubscriptions({ subscriptions }: HealthInputs): Advice[] {
  return subscriptions.map(({ queue, reason }) => ({
    level: 'warn',
    queue,
    sentence: `The subscription of ${queue} ${reason}. See GET /queues/${queue}/subscription; PUT it again when its receiver is well.`,
  }))
}
