/**
 * Queues by name, any number of them on the sockets there are. An open queue costs no command: BullMQ's Queue is given
 * a backend on a connection that is already there, and is only asked to encode jobs and to count.
 *
 * The names of queues that hold jobs are kept in a Redis set, since BullMQ keeps no list of queues.
 */
import { type JobJson, Queue, QueueKeys, RedisConnection, RedisQueueBackend } from 'bullmq'
import { LRUCache } from 'lru-cache'
import type { Connections } from '../redis/connections.ts'
import type { Gateway, Operation } from '../redis/gateway.ts'

/** Names that may be part of a key and of a URL. BullMQ accepts more, and then breaks. */
export const QUEUE_PATTERN = '^[A-Za-z0-9_.-]{1,100}$'

/** The states of a job, BullMQ's names. */
export const states = [
  'waiting',
  'delayed',
  'prioritized',
  'active',
  'waiting-children',
  'completed',
  'failed',
] as const
export type State = (typeof states)[number]

export interface OpenQueue {
  readonly name: string
  /** What every key of the queue begins with: `bull:emails:`. */
  readonly base: string
  /** The keys of BullMQ's three add scripts, one list after the other, as `enqueue.lua` wants them. */
  readonly addKeys: string[]
  /** A job as the arguments of the add script that BullMQ picks for it. */
  encode(job: EncodableJob): EncodedJob
}

/** The part of BullMQ's `JobJson` that its add scripts read. `data` is JSON text. */
export type EncodableJob = Pick<JobJson, 'id' | 'name' | 'data' | 'opts' | 'timestamp' | 'deduplicationId'>

export interface EncodedJob {
  /** Which script: 1 addStandardJob, 2 addDelayedJob, 3 addPrioritizedJob. */
  kind: number
  /** msgpack of BullMQ's argument list. */
  args: Buffer
  /** JSON text. */
  data: string
  /** msgpack of the options under BullMQ's short names. */
  opts: Buffer
}

export interface Registry {
  open(name: string): OpenQueue
  /** Remembers in Redis that the queue has jobs; once per process and queue, in the background. */
  remember(name: string): void
  /** Names of known queues, sorted, at most `limit`, and how many there are in all. */
  known(limit: number): Promise<{ names: string[]; total: number }>
  /** Jobs per state. One command; its cost does not grow with the queue. */
  counts(name: string): Promise<Record<State, number>>
  openCount(): number
  close(): Promise<void>
}

/** Open queues are cheap (about 5 KB) but callers choose their names: past this many the oldest is dropped. */
const MAX_OPEN = 10_000

/** How long the name of a new queue is held for more of them. Nobody waits for it: it is for listings. */
const REMEMBER_AFTER_MS = 100

const addScripts = ['addStandardJob', 'addDelayedJob', 'addPrioritizedJob']

const REMEMBER: Operation = { label: 'rememberQueue', priority: 'list', isWrite: true, commands: 1 }
const KNOWN: Operation = { label: 'listQueues', priority: 'list', isWrite: false, commands: 1 }
const COUNTS: Operation = { label: 'countJobs', priority: 'list', isWrite: false, commands: 1 }

export function createRegistry(prefix: string, connections: Connections, gateway: Gateway): Registry {
  // `skip…`: BullMQ sends nothing of its own, and a Redis that is away at this moment cannot break the queue for good.
  const connection = new RedisConnection(connections.admin.client, {
    shared: true,
    blocking: false,
    skipVersionCheck: true,
    skipWaitingForReady: true,
  })
  connection.on('error', () => {
    // Told by connections.ts, which owns the socket.
  })
  const queueKeys = new QueueKeys(prefix)
  const openQueues = new LRUCache<string, OpenQueue & { queue: Queue }>({ max: MAX_OPEN })
  const remembered = new LRUCache<string, true>({ max: MAX_OPEN })
  // No queue name is empty, so no job of any queue can spell this key.
  const knownKey = `${prefix}::sluice:queues`
  const unwritten: string[] = []
  let writeTimer: NodeJS.Timeout | undefined
  const background = new Set<Promise<unknown>>()

  function backendOf(
    name: string,
    opts: ConstructorParameters<typeof RedisQueueBackend>[4],
  ): RedisQueueBackend {
    const toKey = (type: string) => queueKeys.toKey(name, type)
    return new RedisQueueBackend(connection, name, queueKeys.getKeys(name), toKey, opts, undefined, false)
  }

  function openQueue(name: string): OpenQueue & { queue: Queue } {
    const queue = new Queue(
      name,
      { connection: connections.admin.client, prefix, skipMetasUpdate: true },
      (queueName, opts) => backendOf(queueName, opts),
    )
    const encode = createEncoder(queue.getBackend() as RedisQueueBackend)
    return {
      name,
      base: `${prefix}:${name}:`,
      addKeys: addKeysOf(encode),
      encode,
      queue,
    }
  }

  function open(name: string) {
    let queue = openQueues.get(name)
    if (!queue) {
      queue = openQueue(name)
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
      .onAdmin(REMEMBER, (client) => client.sadd(knownKey, ...names))
      .catch(() => {
        // Not now, then with the next job of the queue.
        for (const name of names) remembered.delete(name)
      })
      .finally(() => background.delete(writing))
    background.add(writing)
  }

  return {
    open,
    remember(name) {
      if (remembered.get(name)) return
      remembered.set(name, true)
      // A batch may bring a thousand: those of a moment are one command, however the answers of Redis are spread over it.
      writeTimer ??= setTimeout(writeNames, REMEMBER_AFTER_MS)
      unwritten.push(name)
    },
    async known(limit) {
      const names = await gateway.onAdmin(KNOWN, (client) => client.smembers(knownKey))
      return { names: names.sort().slice(0, limit), total: names.length }
    },
    async counts(name) {
      const counts = await gateway.onAdmin(COUNTS, () => open(name).queue.getJobCounts(...states))
      return counts as Record<State, number>
    },
    openCount: () => openQueues.size,
    async close() {
      writeNames()
      await Promise.allSettled(background)
      openQueues.clear()
    },
  }
}

type Recorded = { script: string; list: (string | Buffer)[] }

/** BullMQ's own encoder: it is handed a client that only notes what it is told to send. */
function createEncoder(backend: RedisQueueBackend): (job: EncodableJob) => EncodedJob & { keys: string[] } {
  let recorded: Recorded | undefined
  const recorder = {
    runCommand(script: string, list: (string | Buffer)[]) {
      recorded = { script, list }
    },
  } as unknown as Parameters<RedisQueueBackend['addJobToTransaction']>[0]

  return (job) => {
    recorded = undefined
    // Everything up to the recorder happens synchronously; what the promise brings is the recorder's nothing.
    void backend.addJobToTransaction(recorder, job as JobJson, job.id, {})
    const { script, list } = recorded as unknown as Recorded
    const keyCount = list.length - 3
    return {
      kind: addScripts.indexOf(script.slice(0, script.indexOf(':'))) + 1,
      keys: list.slice(0, keyCount) as string[],
      args: list[keyCount] as Buffer,
      data: list[keyCount + 1] as string,
      opts: list[keyCount + 2] as Buffer,
    }
  }
}

/** Which keys each script takes, learnt from BullMQ by encoding a job of each kind. */
function addKeysOf(encode: ReturnType<typeof createEncoder>): string[] {
  const probe = { id: 'probe', name: 'probe', data: '{}', timestamp: 0 }
  return [{}, { delay: 1 }, { priority: 1 }].flatMap((opts) => encode({ ...probe, opts }).keys)
}
