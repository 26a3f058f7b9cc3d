/**
 * What BullMQ announces of the queues that somebody looks at, heard through one blocking read for all of them
 * (redis/stream-reader.ts). A queue is followed while its feed is used or subscribed to; nobody looks: no command at all.
 *
 * A feed says how far what was read of its queue can be trusted: an answer that was read at a place in the stream holds
 * as long as no later event speaks of its job, the feed is live, and its epoch is the one of that time.
 */

import type { Logger } from 'pino'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { readJobsScript, runScript } from '../redis/scripts/run-script.ts'
import type { StreamGap } from '../redis/streams/gap-detector.ts'
import { isAfter, STREAM_START } from '../redis/streams/stream-position.ts'
import { createStreamReader, type Entry, type StreamReaderStats } from '../redis/streams/stream-reader.ts'

/** An entry of a queue's event stream, by BullMQ's names; times and counts are texts, as BullMQ writes them. */
export interface QueueEvent {
  queue: string
  /** The id of the entry: milliseconds of Redis' clock, then a number within them. */
  id: string
  /** BullMQ's name of it: added, waiting, active, progress, completed, failed, removed, … */
  event: string
  /** The job's key; `undefined` for what concerns the whole queue. */
  key: string | undefined
  fields: Record<string, string>
}

/**
 * Why what was heard may not be all. `reconnected`: nothing is known to be missing. `cleaned`: jobs were removed, and
 * BullMQ says how many, not which (Queue.clean).
 */
export type GapReason = StreamGap | 'reconnected' | 'cleaned'

export interface QueueListener {
  onEvent(event: QueueEvent): void
  onGap(reason: GapReason): void
}

export interface Feed {
  readonly queue: string
  /** Whether events of this queue reach us within a moment. */
  readonly isLive: boolean
  /** Another number than before: something may have happened that was not heard. */
  readonly epoch: number
  /** Nobody looked for a while, so nothing is heard any more. */
  readonly isClosed: boolean
  /** The last event that was delivered. */
  readonly position: string
  /** Ms since 1970; whoever serves an answer that rests on this feed sets it. */
  usedAtMs: number
}

export interface EventSubscription {
  /** Every event after this place is delivered. */
  position: string
  close(): void
}

export interface QueueEvents {
  /** The feed of a queue that is followed already. */
  feed(queue: string): Feed | undefined
  /** Follows the queue from `place` on; `undefined` when too many are followed already. */
  follow(queue: string, place: string): Feed | undefined
  /**
   * Follows the queue until closed, for those who `listen`. Costs a command when nobody follows the queue yet; rejects
   * when Redis is away.
   */
  keep(queue: string): Promise<EventSubscription>
  /** As `keep`, and hears of the queue; with `key` of that job alone. */
  subscribe(queue: string, listener: QueueListener, key?: string): Promise<EventSubscription>
  /** Hears everything of every queue that is followed. Before those who subscribed. */
  listen(listener: { onEvent(event: QueueEvent): void; onGap(queue: string, reason: GapReason): void }): void
  stats(): EventsStats
  close(): Promise<void>
}

export type EventsStats = StreamReaderStats & { subscribers: number }

export interface QueueEventsDeps {
  keyspace: Keyspace
  /** Most queues followed at once: one more makes every read dearer by half a microsecond. */
  maxQueues: number
  connections: RedisConnections
  gateway: RedisGateway
  log: Logger
  /** Whether somebody needs to hear of what happens within a few ms. */
  isUrgent?: () => boolean
  now?: () => number
}

/** A queue that nobody has looked at for this long is followed no more. */
const LINGER_MS = 60_000
const SWEEP_MS = 5_000
/** A queue that was looked at this recently does not make room for another. */
const BUSY_MS = 10_000

const PLACE: RedisOperation = { label: 'jobView', priority: 'read', isWrite: false, commands: 1 }

interface OwnFeed extends Feed {
  stream: string
  isLive: boolean
  epoch: number
  isClosed: boolean
  position: string
  /** Subscriptions; while there is one the feed stays. */
  keepers: number
  /** By job; those of the whole queue are under `WHOLE_QUEUE`. */
  listeners: Map<string, Set<QueueListener>>
}

/** No job has this key. */
const WHOLE_QUEUE = ''

export function createQueueEvents(deps: QueueEventsDeps): QueueEvents {
  const { keyspace, maxQueues, connections, gateway, log, now = Date.now } = deps
  const feeds = new Map<string, OwnFeed>()
  const asking = new Map<string, Promise<string>>()
  const all: Parameters<QueueEvents['listen']>[0][] = []
  const reader = createStreamReader({
    ...{ connections, log, epochKey: keyspace.flushMarker, isUrgent: deps.isUrgent },
    count: gateway.count,
    onEntries(stream, entries) {
      const feed = feeds.get(keyspace.queueOfEventStream(stream))
      if (feed) for (const entry of entries) deliver(feed, entry)
    },
    onGap: (stream, finding) => tellGap(feeds.get(keyspace.queueOfEventStream(stream)), finding),
    onReconnect() {
      for (const feed of feeds.values()) tellGap(feed, 'reconnected')
    },
  })
  let sweeper: NodeJS.Timeout | undefined

  function deliver(feed: OwnFeed, entry: Entry): void {
    const event = parseEntry(feed.queue, entry)
    const { key } = event
    feed.position = event.id
    for (const listener of all) listener.onEvent(event)
    for (const listener of feed.listeners.get(WHOLE_QUEUE) ?? []) listener.onEvent(event)
    if (event.event === 'cleaned' && event.fields['count'] !== '0') tellGap(feed, 'cleaned')
    if (key === undefined) return
    for (const listener of feed.listeners.get(key) ?? []) listener.onEvent(event)
  }

  function tellGap(feed: OwnFeed | undefined, reason: GapReason): void {
    if (!feed) return
    feed.epoch++
    for (const listener of all) listener.onGap(feed.queue, reason)
    for (const [key, listeners] of feed.listeners) {
      // Whoever hears of the whole queue has been told all there is to tell.
      if (reason === 'cleaned' && key === WHOLE_QUEUE) continue
      for (const listener of listeners) listener.onGap(reason)
    }
  }

  function open(queue: string, place: string): OwnFeed {
    const stream = keyspace.eventStream(queue)
    const feed: OwnFeed = {
      queue,
      stream,
      position: place,
      epoch: 0,
      isClosed: false,
      usedAtMs: now(),
      keepers: 0,
      listeners: new Map(),
      get isLive() {
        return reader.isLive(stream)
      },
    }
    feeds.set(queue, feed)
    reader.add(stream, place)
    sweeper ??= setInterval(sweep, SWEEP_MS)
    return feed
  }

  function close(feed: OwnFeed): void {
    feed.isClosed = true
    feeds.delete(feed.queue)
    reader.remove(feed.stream)
  }

  function sweep(): void {
    const before = now() - LINGER_MS
    for (const feed of feeds.values()) if (feed.keepers === 0 && feed.usedAtMs < before) close(feed)
    if (feeds.size > 0) return
    clearInterval(sweeper)
    sweeper = undefined
  }

  /** Room for one more, in place of the one that was looked at longest ago. */
  function makeRoom(): boolean {
    if (feeds.size < maxQueues) return true
    let oldest: OwnFeed | undefined
    for (const feed of feeds.values()) {
      if (feed.keepers === 0 && (!oldest || feed.usedAtMs < oldest.usedAtMs)) oldest = feed
    }
    if (!oldest || oldest.usedAtMs > now() - BUSY_MS) return false
    close(oldest)
    return true
  }

  /** Where the stream of a queue that nobody follows stands; those who want to know at the same time ask once. */
  function placeOf(queue: string): Promise<string> {
    let asked = asking.get(queue)
    if (!asked) {
      asked = askPlace(queue).finally(() => asking.delete(queue))
      asking.set(queue, asked)
    }
    return asked
  }

  async function askPlace(queue: string): Promise<string> {
    // A look at no job: where the stream stands.
    const args = [keyspace.queueBase(queue), 0]
    const [place] = (await gateway.onQueue(queue, PLACE, (client) =>
      runScript(client, readJobsScript, [keyspace.eventStream(queue)], args),
    )) as [string]
    return place
  }

  /** `enter` is called in the same moment in which the place is taken; what it returns, when the subscription ends. */
  async function hold(queue: string, enter: (feed: OwnFeed) => () => void): Promise<EventSubscription> {
    const place = feeds.has(queue) ? STREAM_START : await placeOf(queue)
    // Subscriptions are bounded by the client sockets: for them there is always room.
    const feed = feeds.get(queue) ?? open(queue, place)
    const leave = enter(feed)
    feed.keepers++
    let isOpen = true
    return {
      position: isAfter(place, feed.position) ? place : feed.position,
      close() {
        if (!isOpen) return
        isOpen = false
        leave()
        feed.keepers--
        feed.usedAtMs = now()
      },
    }
  }

  return {
    feed: (queue) => feeds.get(queue),
    follow(queue, place) {
      const feed = feeds.get(queue)
      if (feed) {
        feed.usedAtMs = now()
        return feed
      }
      return makeRoom() ? open(queue, place) : undefined
    },
    keep: (queue) => hold(queue, () => () => {}),
    subscribe: (queue, listener, key = WHOLE_QUEUE) =>
      hold(queue, ({ listeners }) => {
        const ofKey = listeners.get(key) ?? new Set()
        listeners.set(key, ofKey.add(listener))
        return () => {
          if (ofKey.delete(listener) && ofKey.size === 0) listeners.delete(key)
        }
      }),
    listen: (listener) => all.push(listener),
    stats() {
      let subscribers = 0
      for (const { keepers } of feeds.values()) subscribers += keepers
      return { ...reader.stats(), subscribers }
    },
    close() {
      clearInterval(sweeper)
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
