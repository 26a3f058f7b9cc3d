/**
 * Queues by name, any number of them on the sockets there are. BullMQ's own Queue is given a backend on a connection that
 * is already there, costs no command by itself, and is only asked to count.
 *
 * The names of queues that hold jobs are kept in a Redis set, since BullMQ keeps no list of queues.
 */

import { Queue } from 'bullmq'
import { LRUCache } from 'lru-cache'
import { type JobState, jobStates } from '../bullmq/job-states.ts'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import type { BackendFactory } from './shared-backend.ts'

/** Names that may be part of a key and of a URL. BullMQ accepts more, and then breaks. */
export const QUEUE_PATTERN = '^[A-Za-z0-9_.-]{1,100}$'

export interface QueueRegistry {
  /** What every key of the queue begins with: `bull:emails:`. */
  base(name: string): string
  /** Remembers in Redis that the queue has jobs; once per process and queue, in the background. */
  remember(name: string): void
  /** Names of known queues, sorted. */
  known(): Promise<string[]>
  /** Jobs per state. One command; its cost does not grow with the queue. */
  counts(name: string): Promise<Record<JobState, number>>
  /** How many queues this process has found to hold jobs; of more than ten thousand, that many. */
  seen(): number
  close(): Promise<void>
}

/** Callers choose the names of queues: past this many the oldest are forgotten. */
const MAX_REMEMBERED = 10_000
/** Queues that are counted; about 5 KB each. */
const MAX_OPEN = 1_000

/** How long the name of a new queue is held for more of them. Nobody waits for it: it is for listings. */
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

export function createQueueRegistry({
  keyspace,
  connections,
  gateway,
  backendOf,
}: QueueRegistryDeps): QueueRegistry {
  const openQueues = new LRUCache<string, Queue>({ max: MAX_OPEN })
  const remembered = new LRUCache<string, true>({ max: MAX_REMEMBERED })
  const unwritten: string[] = []
  let writeTimer: NodeJS.Timeout | undefined
  const background = new Set<Promise<unknown>>()

  function open(name: string): Queue {
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

  function writeNames(): void {
    clearTimeout(writeTimer)
    writeTimer = undefined
    const names = unwritten.splice(0)
    if (names.length === 0) return
    const writing = gateway
      .onAdmin(REMEMBER, (client) => client.sadd(keyspace.knownQueues, ...names))
      .catch(() => {
        // Not now, then with the next job of the queue.
        for (const name of names) remembered.delete(name)
      })
      .finally(() => background.delete(writing))
    background.add(writing)
  }

  return {
    base: keyspace.queueBase,
    remember(name) {
      if (remembered.get(name)) return
      remembered.set(name, true)
      // A batch may bring a thousand: those of a moment are one command, however the answers of Redis are spread over it.
      writeTimer ??= setTimeout(writeNames, REMEMBER_AFTER_MS)
      unwritten.push(name)
    },
    async known() {
      const names = await gateway.onAdmin(KNOWN, (client) => client.smembers(keyspace.knownQueues))
      return names.sort()
    },
    async counts(name) {
      const counts = await gateway.onAdmin(COUNTS, () => open(name).getJobCounts(...jobStates))
      return counts as Record<JobState, number>
    },
    seen: () => remembered.size,
    async close() {
      writeNames()
      await Promise.allSettled(background)
      openQueues.clear()
    },
  }
}
