/**
 * The events that BullMQ writes about the queues in use, from one blocking read for all of them
 * (redis/streams/stream-reader.ts). A queue is followed only while it is used or subscribed to; without any, no command
 * is sent. Subscriptions to a queue that does not exist yet, or is beyond the limit, are served by polls (polled-queues.ts).
 *
 * A job that was read at a position in the stream stays valid as long as no later event concerns it, the feed of its
 * queue is live, and the epoch of the feed is unchanged. feed-state.ts has the states of a feed.
 */
import type { Logger } from 'pino'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import type { StreamGap } from '../redis/streams/gap-detector.ts'
import { createStreamReader, type Entry, type StreamReaderStats } from '../redis/streams/stream-reader.ts'
import { createEventListeners } from './event-listeners.ts'
import { createEventSources } from './event-sources.ts'
import { createFeedRegistry, type Feed, type TrackedFeed } from './feed-registry.ts'
import { createQueueProbe, type PolledQueuesStats } from './polled-queues.ts'

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
 * Queue.clean removed, but not which. `polled`: the queue is not followed, and has changed.
 */
export type GapReason = StreamGap | 'reconnected' | 'cleaned' | 'polled'

export interface QueueListener {
  onEvent(event: QueueEvent): void
  onGap(reason: GapReason): void
}

export interface AnyQueueListener {
  onEvent(event: QueueEvent): void
  onGap(queue: string, reason: GapReason): void
}

export interface EventSubscription {
  /** Every event after this position is delivered, or a gap is. */
  position: string
  /** Whether a change of the queue is reported within a moment, or by the next poll. */
  isLive(): boolean
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
   * followed yet; rejects with a SluiceError when Redis fails. A queue that cannot be followed is polled.
   */
  retain(queue: string): Promise<EventSubscription>
  /** Like `retain`, and delivers the queue's events to the listener; with `key`, only those of that job. */
  subscribe(queue: string, listener: QueueListener, key?: string): Promise<EventSubscription>
  /** Delivers the events of every followed queue, before subscribers receive them. */
  onAnyEvent(listener: AnyQueueListener): void
  /** Jobs were stored in this process: a queue that did not exist is followed from its first event. */
  noteStored(queue: string): void
  /** The followed queues that keep no events. */
  eventless(): string[]
  stats(): EventsStats
  close(): Promise<void>
}

export type EventsStats = StreamReaderStats & PolledQueuesStats & { subscribers: number; eventless: number }

export interface QueueEventsDeps {
  keyspace: Keyspace
  /** Most queues followed at once. */
  maxQueues: number
  /** Most bytes that one read should return. */
  replyBytesMax: number
  connections: RedisConnections
  gateway: RedisGateway
  log: Logger
  /** Whether events must arrive within a few ms. */
  isUrgent?: () => boolean
  now?: () => number
}

export function createQueueEvents(deps: QueueEventsDeps): QueueEvents {
  const {
    keyspace,
    maxQueues,
    replyBytesMax,
    connections,
    gateway,
    log,
    now = () => performance.now(),
  } = deps
  const reader = createStreamReader({
    connections,
    log,
    replyBytesMax,
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
  const listeners = createEventListeners<QueueEvent, GapReason>((queue, error) =>
    log.error({ queue, reason: String(error) }, 'An event could not be handled'),
  )
  const sources = createEventSources({
    feeds,
    probe: createQueueProbe(keyspace, gateway),
    onPolledChange: (queue) => listeners.deliverGap(queue, 'polled', true),
    now,
  })

  const feedOf = (stream: string) => feeds.get(keyspace.queueOfEventStream(stream))

  function deliver(feed: TrackedFeed, event: QueueEvent): void {
    feed.position = event.id
    listeners.deliver(event)
    if (event.event === 'cleaned' && event.fields['count'] !== '0') reportGap(feed, 'cleaned')
  }

  function reportGap(feed: TrackedFeed, reason: GapReason): void {
    feed.epoch++
    // Listeners of the whole queue have received the `cleaned` event itself.
    listeners.deliverGap(feed.queue, reason, reason !== 'cleaned')
  }

  return {
    feed: feeds.get,
    follow: sources.follow,
    retain: (queue) => sources.retain(queue, () => () => {}),
    subscribe: (queue, listener, key) => sources.retain(queue, () => listeners.add(queue, key, listener)),
    onAnyEvent: listeners.addAny,
    noteStored: sources.noteStored,
    eventless: () => reader.eventless().map(keyspace.queueOfEventStream),
    stats: () => ({ ...reader.stats(), ...sources.stats(), eventless: reader.eventless().length }),
    close() {
      feeds.close()
      sources.close()
      return reader.close()
    },
  }
}

export function parseEntry(queue: string, [id, list]: Entry): QueueEvent {
  const fields: Record<string, string> = {}
  for (let i = 0; i < list.length; i += 2) fields[list[i]!] = list[i + 1]!
  const { event = '', jobId: key } = fields
  return { queue, id, event, key, fields }
}
