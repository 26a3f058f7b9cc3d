/**
 * Queues by name. BullMQ's Queue is used only to count jobs. It gets a backend on an existing connection and sends nothing by
 * itself, so queues add no connections. BullMQ keeps no list of queues, so the names of those with jobs are in a Redis set.
 */
import { Queue } from 'bullmq'
import { LRUCache } from 'lru-cache'
import { type JobState, jobStates } from '../bullmq/job-states.ts'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import type { BackendFactory } from './shared-backend.ts'

/** Names that are safe in a Redis key and in a URL. BullMQ accepts others, and fails later. */
export const QUEUE_PATTERN = '^[A-Za-z0-9_.-]{1,100}$'

export interface QueueRegistry {
  /** What every key of the queue starts with: `bull:emails:`. */
  base(name: string): string
  /** Adds the queue to the list of queues that hold jobs: once per process and queue, in the background. */
  remember(name: string): void
  /** Names of all queues that hold or held jobs, sorted. Rejects with a SluiceError. */
  known(): Promise<string[]>
  /** Jobs by state. One command, whose cost does not grow with the queue. Rejects with a SluiceError. */
  counts(name: string): Promise<Record<JobState, number>>
  /** Number of queues with jobs that this process has seen, 10,000 at most. */
  seen(): number
  /** Resolves when the names that were remembered are written. */
  close(): Promise<void>
}

/** Clients choose the names of queues; beyond this many the least recently used are forgotten. */
const MAX_REMEMBERED = 10_000
/** Instances of BullMQ's Queue; about 5 KB each. */
const MAX_OPEN = 1_000

/** New names are collected this long and written in one command. Only listings read them, so the delay is harmless. */
const REMEMBER_AFTER_MS = 100

const REMEMBER: RedisOperation = { label: 'rememberQueue', priority: 'list', isWrite: true, commands: 1 }
const KNOWN: RedisOperation = { label: 'listQueues', priority: 'list', isWrite: false, commands: 1 }
const COUNTS: RedisOperation = { label: 'countJobs', priority: 'list', isWrite: false, commands: 1 }

export interface QueueRegistryDeps {
  keyspace: Keyspace
  connections: RedisConnections
  gateway: RedisGateway
  backendOf: BackendFactory
}

export function createQueueRegistry(deps: QueueRegistryDeps): QueueRegistry {
  const { keyspace, connections, gateway, backendOf } = deps
  const openQueues = new LRUCache<string, Queue>({ max: MAX_OPEN })
  const remembered = new LRUCache<string, true>({ max: MAX_REMEMBERED })
  const unwrittenNames: string[] = []
  const writes = new Set<Promise<void>>()
  let writeTimer: NodeJS.Timeout | undefined

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

  function remember(name: string): void {
    if (remembered.get(name)) return
    remembered.set(name, true)
    writeTimer ??= setTimeout(writeNames, REMEMBER_AFTER_MS)
    unwrittenNames.push(name)
  }

  function writeNames(): void {
    clearTimeout(writeTimer)
    writeTimer = undefined
    const names = unwrittenNames.splice(0)
    if (names.length === 0) return
    const write = gateway
      .onAdmin(REMEMBER, (client) => client.sadd(keyspace.knownQueues, ...names))
      .then(
        () => {},
        () => {
          // The next job of the queue tries again.
          for (const name of names) remembered.delete(name)
        },
      )
      .finally(() => writes.delete(write))
    writes.add(write)
  }

  async function known(): Promise<string[]> {
    const names = await gateway.onAdmin(KNOWN, (client) => client.smembers(keyspace.knownQueues))
    return names.sort()
  }

  async function counts(name: string): Promise<Record<JobState, number>> {
    const byState = await gateway.onAdmin(COUNTS, () => openQueue(name).getJobCounts(...jobStates))
    return byState as Record<JobState, number>
  }

  async function close(): Promise<void> {
    writeNames()
    await Promise.allSettled(writes)
    openQueues.clear()
  }

  return { base: keyspace.queueBase, remember, known, counts, seen: () => remembered.size, close }
}
