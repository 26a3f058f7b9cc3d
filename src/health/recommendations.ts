/** Derives advice on the shared parts and on Redis from a measurement. Pure, so that every sentence has a test. */
import type { SchedulerTrouble } from '../dispatch/scheduler-notices.ts'
import type { EventsStats } from '../events/queue-events.ts'
import type { Advice } from '../feature.ts'
import { quoteName } from '../queues/queue-name.ts'
import type { ConnectionBudget } from '../redis/connection/connection-budget.ts'
import type { ConnectionStats } from '../redis/connection/connections.ts'
import { isSupported, type ServerInfo } from '../redis/connection/server-info.ts'
import type { SemaphoreStats } from '../redis/gateway/semaphore.ts'
import type { HealthStatus } from './health-responses.ts'
import type { MeasuredQueues } from './measurement.ts'

export interface HealthInputs {
  /** `undefined` while Redis cannot be read; `redisError` says why. */
  server: ServerInfo | undefined
  redisError: string | undefined
  /** Why Redis runs no scripts. */
  scriptsProblem: string | undefined
  budget: ConnectionBudget
  pool: ConnectionStats
  semaphore: SemaphoreStats
  events: Pick<EventsStats, 'status' | 'reason' | 'lagMs' | 'beyondLimit'>
  /** Followed queues that keep no events. */
  eventlessQueues: string[]
  schedulers: SchedulerTrouble[]
  queues: MeasuredQueues['counted']
  /** Queues that could not be counted. */
  uncounted: string[]
  /** DURABILITY_REPLICAS. */
  replicasWanted: number
  /** Why API_KEYS_FILE could not be reloaded. */
  keysProblem: string | undefined
}

/** Above this share of maxmemory Redis is nearly full; at maxmemory not even workers can take jobs, since taking one writes. */
const MEMORY_WATERMARK = 0.8
/** A change of a job is promised to be visible within this. */
const MAX_LAG_MS = 100
const MANY_FAILED = 100
const MANY_WAITING = 1_000
/** Most characters of a scheduler's id in a sentence. */
const MAX_ID = 200
/** Share of Redis' maxclients above which connections are nearly used up. */
const CONNECTIONS_WATERMARK = 0.9

export function recommend(inputs: HealthInputs): Advice[] {
  return [
    ...adviseOnRedis(inputs),
    ...adviseOnReplicas(inputs),
    ...adviseOnConnections(inputs),
    ...adviseOnEvents(inputs),
    ...adviseOnFeeds(inputs),
    ...adviseOnSchedulers(inputs),
    ...adviseOnQueues(inputs),
    ...adviseOnKeys(inputs),
  ]
}

/** The worst level decides. */
export function statusOf(advice: Advice[]): HealthStatus {
  const levels = advice.map(({ level }) => level)
  return levels.includes('fail') ? 'fail' : levels.includes('warn') ? 'warn' : 'pass'
}

const warning = (sentence: string): Advice => ({ level: 'warn', sentence })
const failure = (sentence: string): Advice => ({ level: 'fail', sentence })
const quoting = (advice: Advice): Advice => ({ ...advice, quotesText: true })

function adviseOnRedis({ server, redisError, scriptsProblem, pool }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  if (!server)
    advice.push(quoting(failure(`Redis does not answer (${redisError}). Check REDIS_URL and the server.`)))
  if (scriptsProblem !== undefined) advice.push(failure(scriptsProblem))
  if (pool.lastLimitError) {
    advice.push(
      quoting(
        warning(
          `The provider refused commands with "${pool.lastLimitError}". Raise the plan's limit, or lower REPLICAS, ` +
            'REDIS_POOL_SIZE and the number of clients that connect to Redis themselves.',
        ),
      ),
    )
  }
  return server ? [...advice, ...adviseOnServer(server)] : advice
}

function adviseOnServer(server: ServerInfo): Advice[] {
  const { version, role, loading, evictionPolicy, usedMemoryBytes, maxMemoryBytes, durability } = server
  const advice: Advice[] = []
  if (!isSupported(version))
    advice.push(warning(`Redis ${version} is too old: version 6.2 or later is required.`))
  if (role !== 'master')
    advice.push(failure(`Redis is a ${role}: it accepts no jobs. Point REDIS_URL at the master.`))
  if (loading) advice.push(failure('Redis is loading its data. Wait until it has finished.'))
  if (evictionPolicy !== 'noeviction') {
    advice.push(warning(`maxmemory-policy is ${evictionPolicy}: Redis may evict jobs. Set it to noeviction.`))
  }
  if (maxMemoryBytes > 0 && usedMemoryBytes >= MEMORY_WATERMARK * maxMemoryBytes) {
    const percent = Math.round((usedMemoryBytes / maxMemoryBytes) * 100)
    advice.push(
      warning(
        `Redis uses ${percent} % of maxmemory. Let workers drain the queues, keep finished jobs for a shorter time, ` +
          'or raise maxmemory.',
      ),
    )
  }
  if (durability.mode !== 'appendfsync always') {
    advice.push(
      warning(`${durability.meaning} Set appendonly yes and appendfsync always if no job may be lost.`),
    )
  }
  return advice
}

function adviseOnReplicas({ server, replicasWanted }: HealthInputs): Advice[] {
  if (!server || server.replicas >= replicasWanted) return []
  return [
    failure(
      `DURABILITY_REPLICAS is ${replicasWanted} and Redis has ${server.replicas}: no job is acknowledged. ` +
        'Bring the replicas back, or lower DURABILITY_REPLICAS.',
    ),
  ]
}

function adviseOnKeys({ keysProblem }: HealthInputs): Advice[] {
  return keysProblem === undefined ? [] : [quoting(warning(`${keysProblem}. Fix the file.`))]
}

function adviseOnConnections({ server, budget, pool, semaphore }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  if (server?.maxClients && server.maxClients < budget.providerLimit) {
    advice.push(
      warning(
        `Redis allows ${server.maxClients} connections, less than REDIS_PROVIDER_LIMIT (${budget.providerLimit}), so the ` +
          'connection budget is too large. Set REDIS_PROVIDER_LIMIT to the real limit.',
      ),
    )
  }
  if (server?.maxClients && server.connectedClients > CONNECTIONS_WATERMARK * server.maxClients) {
    advice.push(
      warning(
        `${server.connectedClients} of Redis' ${server.maxClients} connections are in use, ${pool.created} of them by ` +
          'this process. Close connections of other clients, or raise maxclients.',
      ),
    )
  }
  if (server && server.rejectedConnections > 0) {
    advice.push(
      warning(
        `Redis has refused ${server.rejectedConnections} connections since its start. Find the client that opens too many.`,
      ),
    )
  }
  if (pool.created > budget.usefulMax) {
    advice.push(
      warning(
        `REDIS_POOL_SIZE is larger than can be used: ${budget.usefulMax} (concurrent operations + 20) is enough.`,
      ),
    )
  }
  if (semaphore.refused > 0) {
    advice.push(
      warning(
        `${semaphore.refused} operations were refused because ${semaphore.permits} were in flight and ${semaphore.maxWaiting} ` +
          'waited. Find what is slow in Redis first; then raise REDIS_MAX_CONCURRENT_OPS.',
      ),
    )
  }
  return advice
}

function adviseOnFeeds({ events, eventlessQueues }: HealthInputs): Advice[] {
  const advice = eventlessQueues.map((queue): Advice => {
    const sentence =
      `The queue ${quoteName(queue)} keeps no events, so its workers and statuses are up to a second late. Let its producers keep some: ` +
      "BullMQ's option streams.events.maxLen."
    return { level: 'warn', sentence, queue }
  })
  if (events.beyondLimit === 0) return advice
  const sentence =
    `${events.beyondLimit} queues more than EVENTS_MAX_QUEUES are in use; they are polled, so that changes show up to a ` +
    'second late. Raise EVENTS_MAX_QUEUES, or add a replica.'
  return [...advice, warning(sentence)]
}

function adviseOnSchedulers({ schedulers }: HealthInputs): Advice[] {
  return schedulers.map(({ queue, schedulerId, kind }) => {
    const what =
      kind === 'stuck'
        ? 'did not go on when it was last tried: only native workers can create its next job, and none took it. Run one ' +
          'with its settings.repeatStrategy, or give the scheduler a cron pattern.'
        : kind === 'legacy'
          ? 'has ended: it is a repeatable job of BullMQ 5 or older, and BullMQ 6 does not repeat it. Replace it by upsertJobScheduler.'
          : 'has ended: its job was malformed. Create it again with upsertJobScheduler.'
    // An id may contain line breaks.
    const id = JSON.stringify(schedulerId.slice(0, MAX_ID)).slice(1, -1)
    return {
      level: 'warn',
      sentence: `The scheduler ${id} of ${quoteName(queue)} ${what}`,
      queue,
    }
  })
}

function adviseOnEvents({ server, events }: HealthInputs): Advice[] {
  if (server && events.status === 'degraded') {
    return [
      quoting(
        warning(
          `Job events are not received (${events.reason}): a status is served from memory for one second only, and every ` +
            'later read is a Redis command. The service recovers by itself.',
        ),
      ),
    ]
  }
  if (events.lagMs <= MAX_LAG_MS) return []
  return [
    warning(
      `Job events were received up to ${events.lagMs} ms late: this process or Redis is short of CPU, or the followed ` +
        'queues have more events than one reader can process. Add a replica, or lower EVENTS_MAX_QUEUES.',
    ),
  ]
}

function adviseOnQueues({ queues, uncounted }: HealthInputs): Advice[] {
  const advice: Advice[] = []
  for (const [queue, counts] of queues) {
    const waiting = counts.waiting + counts.prioritized
    if (waiting >= MANY_WAITING && counts.active === 0) {
      const sentence = `${waiting} jobs wait in ${quoteName(queue)} and none is active. Check that a worker runs and that the queue is not paused.`
      advice.push({ level: 'warn', sentence, queue })
    }
    if (counts.failed >= MANY_FAILED) {
      const sentence = `${counts.failed} jobs of ${quoteName(queue)} have failed. Read one with GET /jobs/{id} to see its error.`
      advice.push({ level: 'warn', sentence, queue })
    }
  }
  for (const queue of uncounted) {
    const sentence = `The jobs of ${quoteName(queue)} could not be counted: something other than BullMQ may have written one of its keys.`
    advice.push({ level: 'warn', sentence, queue })
  }
  return advice
}
