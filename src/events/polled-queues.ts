/**
 * Queues with subscriptions but without a feed: those that do not exist yet, and those beyond the limit of feeds. Four times a
 * second their streams are looked at, a bounded number of them, all with a few commands; each that has changed is reported.
 */
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { inspectStreams } from '../redis/scripts/inspect-streams.ts'
import { isAfter, STREAM_START, type StreamFacts } from '../redis/streams/stream-position.ts'

/** The stream of a queue at one instant. */
export interface QueueProbe {
  /** False for a queue that never had a job. */
  exists: boolean
  /** The last id ever added. */
  position: string
  /** The entries are trimmed as they are added. */
  isEventless: boolean
}

export interface PolledQueue {
  readonly queue: string
  exists: boolean
  /** Events after it have not been reported. */
  position: string
  retainCount: number
  /** Ms since 1970. */
  usedAtMs: number
}

export interface PolledQueues {
  get(queue: string): PolledQueue | undefined
  add(queue: string, probe: QueueProbe): PolledQueue
  remove(queue: string): void
  /** Whether the last poll has succeeded. */
  isLive(): boolean
  stats(): PolledQueuesStats & { subscribers: number }
  close(): void
}

export interface PolledQueuesStats {
  /** All of them. */
  polled: number
  /** Those that exist, and have no feed because of the limit. */
  beyondLimit: number
}

export interface PolledQueuesDeps {
  probe(queues: string[]): Promise<QueueProbe[]>
  /** The queue has come into existence, or has changed, or exists already and may get a feed now. */
  onProbe(polled: PolledQueue, probe: QueueProbe): void
}

const POLL_MS = 250
/** Most queues looked at in one poll; more take turns. */
const QUEUES_PER_POLL = 250
/** Queues in one command. */
const QUEUES_PER_COMMAND = 50

export function createPolledQueues({ probe, onProbe }: PolledQueuesDeps): PolledQueues {
  /** Those that were looked at last are at the end. */
  const queues = new Map<string, PolledQueue>()
  let timer: NodeJS.Timeout | undefined
  let isClosed = false
  let hasFailed = false

  function schedule(): void {
    if (queues.size > 0 && !isClosed) timer ??= setTimeout(() => void poll(), POLL_MS)
  }

  async function poll(): Promise<void> {
    const due = [...queues.values()].slice(0, QUEUES_PER_POLL)
    hasFailed = false
    for (let from = 0; from < due.length && !isClosed; from += QUEUES_PER_COMMAND) {
      // The next poll finds what has changed meanwhile.
      await look(due.slice(from, from + QUEUES_PER_COMMAND)).catch(() => {
        hasFailed = true
      })
    }
    timer = undefined
    schedule()
  }

  async function look(due: PolledQueue[]): Promise<void> {
    const probes = await probe(due.map(({ queue }) => queue))
    for (const [index, polled] of due.entries()) {
      if (queues.get(polled.queue) !== polled) continue
      queues.delete(polled.queue)
      queues.set(polled.queue, polled)
      const found = probes[index]!
      if (found.exists) onProbe(polled, found)
    }
  }

  return {
    get: (queue) => queues.get(queue),
    add(queue, { exists, position }) {
      const polled = { queue, exists, position, retainCount: 0, usedAtMs: 0 }
      queues.set(queue, polled)
      schedule()
      return polled
    },
    remove: (queue) => queues.delete(queue),
    isLive: () => !hasFailed,
    stats() {
      let beyondLimit = 0
      let subscribers = 0
      for (const { exists, retainCount } of queues.values()) {
        if (exists) beyondLimit++
        subscribers += retainCount
      }
      return { polled: queues.size, beyondLimit, subscribers }
    },
    close() {
      isClosed = true
      clearTimeout(timer)
    },
  }
}

const PROBE: RedisOperation = { label: 'probeQueues', priority: 'read', isWrite: false, commands: 1 }

/** Looks at queues with one command, of one queue on its own connection. Rejects with a SluiceError when Redis fails. */
export function createQueueProbe(keyspace: Keyspace, gateway: RedisGateway): PolledQueuesDeps['probe'] {
  return async (queues) => {
    const keys = queues.flatMap((queue) => [keyspace.queueMeta(queue), keyspace.eventStream(queue)])
    const inspect = (client: Parameters<typeof inspectStreams>[0]) =>
      inspectStreams(client, keyspace.flushMarker, keys)
    const [first] = queues
    const { streams } =
      queues.length === 1 && first !== undefined
        ? await gateway.onQueue(first, PROBE, inspect)
        : await gateway.onAdmin(PROBE, inspect)
    return queues.map((_, index) => toProbe(streams[2 * index]!, streams[2 * index + 1]!))
  }
}

/** BullMQ creates the hash `meta` with the queue or its first job. */
function toProbe(meta: StreamFacts, stream: StreamFacts): QueueProbe {
  if (stream.kind !== 'stream') {
    const exists = meta.kind !== 'none' || stream.kind !== 'none'
    return { exists, position: STREAM_START, isEventless: false }
  }
  const { lastId, length } = stream
  return { exists: true, position: lastId, isEventless: length === 0 && isAfter(lastId, STREAM_START) }
}
