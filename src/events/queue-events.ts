/**
 * The events that BullMQ writes about the queues in use, from one blocking read for all of them
 * (redis/streams/stream-reader.ts). A queue is followed only while it is used or subscribed to; without any, no command
 * is sent.
 *
 * A job that was read at a position in the stream stays valid as long as no later event concerns it, the feed of its
 * queue is live, and the epoch of the feed is unchanged. feed-state.ts has the states of a feed.
 */
import type { Logger } from 'pino'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { readStreamPosition } from '../redis/scripts/read-jobs.ts'
import type { StreamGap } from '../redis/streams/gap-detector.ts'
import { isAfter, STREAM_START } from '../redis/streams/stream-position.ts'
import { createStreamReader, type Entry, type StreamReaderStats } from '../redis/streams/stream-reader.ts'
import { createFeedRegistry, type Feed, type TrackedFeed } from './feed-registry.ts'

/** An entry of a queue's event stream, in BullMQ's terms; times and counts are texts, as BullMQ writes them. */
export interface QueueEvent {
  queue: string
  /** Id of the entry: milliseconds by Redis' clock, then a number within the millisecond. */
  id: string
  /** BullMQ's name: added, waiting, active, progress, completed, failed, removed, … */
  event: string
  /** Key of the job; `undefined` for an event of the whole queue. */
  key: string | undefined
  fields: Record<string, string>
}

/**
 * Why events may be missing. `reconnected`: no event is known to be missing. `cleaned`: BullMQ announces how many jobs
 * Queue.clean removed, but not which.
 */
export type GapReason = StreamGap | 'reconnected' | 'cleaned'

export interface QueueListener {
  onEvent(event: QueueEvent): void
  onGap(reason: GapReason): void
}

export interface AnyQueueListener {
  onEvent(event: QueueEvent): void
  onGap(queue: string, reason: GapReason): void
}

export interface EventSubscription {
  /** Every event after this position is delivered. */
  position: string
  close(): void
}

export interface QueueEvents {
  /** The feed of a queue, if the queue is followed. */
  feed(queue: string): Feed | undefined
  /**
   * Follows a queue from `position` on, until it has not been used for a while. `undefined`: too many queues are
   * followed, and all are in use.
   */
  follow(queue: string, position: string): Feed | undefined
  /**
   * Follows a queue until the subscription is closed, for listeners of `onAnyEvent`. Sends a command if the queue is not
   * followed yet; rejects with a SluiceError when Redis fails.
   */
  retain(queue: string): Promise<EventSubscription>
  /** Like `retain`, and delivers the queue's events to the listener; with `key`, only those of that job. */
  subscribe(queue: string, listener: QueueListener, key?: string): Promise<EventSubscription>
  /** Delivers the events of every followed queue, before subscribers receive them. */
  onAnyEvent(listener: AnyQueueListener): void
  stats(): EventsStats
  close(): Promise<void>
}

export type EventsStats = StreamReaderStats & { subscribers: number }

export interface QueueEventsDeps {
  keyspace: Keyspace
  /** Most queues followed at once, not counting subscriptions. */
  maxQueues: number
  connections: RedisConnections
  gateway: RedisGateway
  log: Logger
  /** Whether events must arrive within a few ms. */
  isUrgent?: () => boolean
  now?: () => number
}

const READ_POSITION: RedisOperation = { label: 'jobView', priority: 'read', isWrite: false, commands: 1 }

/** The key of listeners to a whole queue; no job has it. */
const WHOLE_QUEUE = ''

export function createQueueEvents(deps: QueueEventsDeps): QueueEvents {
  const { keyspace, maxQueues, connections, gateway, log, now = () => performance.now() } = deps
  const reader = createStreamReader({
    connections,
    log,
    epochKey: keyspace.flushMarker,
    isUrgent: deps.isUrgent,
    count: gateway.count,
    onEntries(stream, entries) {
      const feed = feedOf(stream)
      if (feed) for (const entry of entries) deliver(feed, parseEntry(feed.queue, entry))
    },
    onGap(stream, gap) {
      const feed = feedOf(stream)
      if (feed) reportGap(feed, gap)
    },
    onReconnect() {
      for (const feed of feeds.all()) reportGap(feed, 'reconnected')
    },
  })
  const feeds = createFeedRegistry({ keyspace, maxQueues, reader, now })
  const anyListeners: AnyQueueListener[] = []
  /** By queue, then by job key. */
  const listeners = new Map<string, Map<string, Set<QueueListener>>>()
  const readPosition = createPositionReader(keyspace, gateway)

  const feedOf = (stream: string) => feeds.get(keyspace.queueOfEventStream(stream))

  function deliver(feed: TrackedFeed, event: QueueEvent): void {
    feed.position = event.id
    for (const listener of anyListeners) listener.onEvent(event)
    const ofQueue = listeners.get(feed.queue)
    for (const listener of ofQueue?.get(WHOLE_QUEUE) ?? []) listener.onEvent(event)
    if (event.event === 'cleaned' && event.fields['count'] !== '0') reportGap(feed, 'cleaned')
    if (event.key === undefined || event.key === WHOLE_QUEUE) return
    for (const listener of ofQueue?.get(event.key) ?? []) listener.onEvent(event)
  }

  function reportGap(feed: TrackedFeed, reason: GapReason): void {
    feed.epoch++
    for (const listener of anyListeners) listener.onGap(feed.queue, reason)
    for (const [key, ofKey] of listeners.get(feed.queue) ?? []) {
      // Listeners of the whole queue have received the `cleaned` event itself.
      if (reason === 'cleaned' && key === WHOLE_QUEUE) continue
      for (const listener of ofKey) listener.onGap(reason)
    }
  }

  /** `onOpen` runs in the same tick in which the position is fixed; it returns what to do on close. */
  async function openSubscription(queue: string, onOpen: () => () => void): Promise<EventSubscription> {
    const position = feeds.get(queue) ? STREAM_START : await readPosition(queue)
    // Client sockets bound the number of subscriptions, so they are exempt from `maxQueues`.
    const feed = feeds.get(queue) ?? feeds.open(queue, position)
    const onClose = onOpen()
    feed.retainCount++
    let isOpen = true
    return {
      position: isAfter(position, feed.position) ? position : feed.position,
      close() {
        if (!isOpen) return
        isOpen = false
        onClose()
        feed.retainCount--
        feed.usedAtMs = now()
      },
    }
  }

  function follow(queue: string, position: string): Feed | undefined {
    const feed = feeds.get(queue)
    if (!feed) return feeds.reserve() ? feeds.open(queue, position) : undefined
    feed.usedAtMs = now()
    return feed
  }

  return {
    feed: feeds.get,
    follow,
    retain: (queue) => openSubscription(queue, () => () => {}),
    subscribe: (queue, listener, key = WHOLE_QUEUE) =>
      openSubscription(queue, () => addListener(listeners, queue, key, listener)),
    onAnyEvent: (listener) => anyListeners.push(listener),
    stats: () => ({ ...reader.stats(), subscribers: countRetained(feeds.all()) }),
    close() {
      feeds.close()
      return reader.close()
    },
  }
}

/** Reads the position of a queue's stream. Concurrent callers for one queue share a command. */
function createPositionReader(keyspace: Keyspace, gateway: RedisGateway): (queue: string) => Promise<string> {
  const pending = new Map<string, Promise<string>>()
  return function readPosition(queue) {
    let position = pending.get(queue)
    if (!position) {
      const base = keyspace.queueBase(queue)
      position = gateway
        .onQueue(queue, READ_POSITION, (client) => readStreamPosition(client, base))
        .finally(() => pending.delete(queue))
      pending.set(queue, position)
    }
    return position
  }
}

/** Returns the function that removes the listener. */
function addListener(
  listeners: Map<string, Map<string, Set<QueueListener>>>,
  queue: string,
  key: string,
  listener: QueueListener,
): () => void {
  const ofQueue = listeners.get(queue) ?? new Map<string, Set<QueueListener>>()
  const ofKey = ofQueue.get(key) ?? new Set()
  listeners.set(queue, ofQueue.set(key, ofKey.add(listener)))
  return () => {
    if (!ofKey.delete(listener) || ofKey.size > 0) return
    ofQueue.delete(key)
    if (ofQueue.size === 0) listeners.delete(queue)
  }
}

function countRetained(feeds: Iterable<TrackedFeed>): number {
  let count = 0
  for (const { retainCount } of feeds) count += retainCount
  return count
}

export function parseEntry(queue: string, [id, list]: Entry): QueueEvent {
  const fields: Record<string, string> = {}
  for (let i = 0; i < list.length; i += 2) fields[list[i]!] = list[i + 1]!
  const { event = '', jobId: key } = fields
  return { queue, id, event, key, fields }
}
