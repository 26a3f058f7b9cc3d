/**
 * Queues by name. BullMQ's Queue is used only to count jobs. It gets a backend on an existing connection and sends nothing by
 * itself, so queues add no connections. Which queues exist is in known-queues.ts.
 */
import { Queue } from 'bullmq'
import { LRUCache } from 'lru-cache'
import { type JobState, jobStates } from '../bullmq/job-states.ts'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { countQueues, type JobCounts } from '../redis/scripts/queues/count-queues.ts'
import { createKnownQueues, type KnownNames, type KnownQueuesStats } from './known-queues.ts'
import type { BackendFactory } from './shared-backend.ts'

export interface QueueRegistry {
  /** What every key of the queue starts with: `bull:emails:`. */
  base(name: string): string
  /** The id of the job whose hash has this Redis key; `undefined` if the key has another prefix. */
  jobIdOf(jobKey: string): string | undefined
  /** Records that the queue holds jobs, now and then, in the background. */
  remember(name: string): void
  /** Queues that hold or held jobs: their number, and the names of those used last. Rejects with a SluiceError. */
  known(limit: number): Promise<KnownNames>
  /** Jobs by state. One command, whose cost does not grow with the queue. Rejects with a SluiceError. */
  counts(name: string): Promise<Record<JobState, number>>
  /**
   * Jobs by state of each queue, in the same order; `undefined` for a queue that something other than BullMQ has written.
   * One command for 50 queues. Rejects with a SluiceError.
   */
  countMany(names: string[]): Promise<(JobCounts | undefined)[]>
  /** Number of queues with jobs that this process has seen, 10,000 at most. */
  seen(): number
  stats(): KnownQueuesStats
  /** Resolves when the names that were remembered are written. */
  close(): Promise<void>
}

/** Instances of BullMQ's Queue; about 5 KB each. */
const MAX_OPEN = 1_000
/** Counting these takes Redis about 0.3 ms. */
const COUNTED_AT_ONCE = 50

const COUNTS: RedisOperation = { label: 'countJobs', priority: 'list', isWrite: false, commands: 1 }

export interface QueueRegistryDeps {
  keyspace: Keyspace
  connections: RedisConnections
  gateway: RedisGateway
  backendOf: BackendFactory
  /** KNOWN_QUEUES_MAX. */
  maxKnown: number
  /** KNOWN_QUEUES_IDLE. */
  idleMs: number
}

export function createQueueRegistry(deps: QueueRegistryDeps): QueueRegistry {
  const { keyspace, connections, gateway, backendOf, maxKnown, idleMs } = deps
  const openQueues = new LRUCache<string, Queue>({ max: MAX_OPEN })
  const knownQueues = createKnownQueues({ keyspace, gateway, maxKnown, idleMs })

  function openQueue(name: string): Queue {
    let queue = openQueues.get(name)
    if (!queue) {
      queue = new Queue(
        name,
        { connection: connections.admin.client, prefix: keyspace.prefix, skipMetasUpdate: true },
        (queueName, opts) => backendOf(queueName, opts),
      )
      openQueues.set(name, queue)
    }
    return queue
  }

  async function counts(name: string): Promise<Record<JobState, number>> {
    const byState = await gateway.onAdmin(COUNTS, () => openQueue(name).getJobCounts(...jobStates))
    return byState as Record<JobState, number>
  }

  async function countMany(names: string[]): Promise<(JobCounts | undefined)[]> {
    const pages: string[][] = []
    for (let at = 0; at < names.length; at += COUNTED_AT_ONCE)
      pages.push(names.slice(at, at + COUNTED_AT_ONCE))
    const counted = await Promise.all(
      pages.map((page) =>
        gateway.onAdmin(COUNTS, (client) => countQueues(client, page.map(keyspace.queueBase))),
      ),
    )
    return counted.flat()
  }

  async function close(): Promise<void> {
    await knownQueues.close()
    openQueues.clear()
  }

  const { remember, known, seen, stats } = knownQueues
  return {
    base: keyspace.queueBase,
    jobIdOf: keyspace.jobIdOf,
    remember,
    known,
    counts,
    countMany,
    seen,
    stats,
    close,
  }
}
