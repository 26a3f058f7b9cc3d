/**
 * Where the subscriptions to a queue get its changes from: a feed or, for a queue that does not exist yet or is beyond the
 * limit, polls. A subscription keeps its source, and moves to a feed as soon as one can be opened.
 */
import { isAfter, STREAM_START } from '../redis/streams/stream-position.ts'
import type { Feed, FeedRegistry, TrackedFeed } from './feed-registry.ts'
import {
  createPolledQueues,
  type PolledQueue,
  type PolledQueuesDeps,
  type PolledQueuesStats,
  type QueueProbe,
} from './polled-queues.ts'

export interface Retained {
  /** Every event after this position is delivered, or a gap is. */
  position: string
  /** Whether a change of the queue is reported within a moment, or by the next poll. */
  isLive(): boolean
  close(): void
}

export interface EventSources {
  /**
   * `onOpen` runs in the same tick in which the position is fixed; it returns what to do on close. Sends a command unless
   * the queue has a source. Rejects as `probe` does.
   */
  retain(queue: string, onOpen: () => () => void): Promise<Retained>
  /** Opens a feed for as long as it is used. `undefined`: there is no room. */
  follow(queue: string, position: string): Feed | undefined
  /** Jobs were stored in a queue that may not have existed. */
  noteStored(queue: string): void
  stats(): PolledQueuesStats & { subscribers: number }
  close(): void
}

export interface EventSourcesDeps {
  feeds: FeedRegistry
  probe: PolledQueuesDeps['probe']
  /** A queue has changed, and no event says how. */
  onPolledChange(queue: string): void
  now(): number
}

export function createEventSources({ feeds, probe, onPolledChange, now }: EventSourcesDeps): EventSources {
  const probeOne = shareByQueue((queue) => probe([queue]).then(([found]) => found!))
  const polledQueues = createPolledQueues({ probe, onProbe })

  const sourceOf = (queue: string) => feeds.get(queue) ?? polledQueues.get(queue)

  /** The result of a poll, for a queue that exists. */
  function onProbe(polled: PolledQueue, { position, isEventless }: QueueProbe): void {
    const hasChanged = position !== polled.position
    const feed = promote(polled, isEventless)
    polled.exists = true
    polled.position = position
    // A feed delivers the events since the last poll, if the queue keeps them.
    if (hasChanged && (!feed || isEventless)) onPolledChange(polled.queue)
  }

  /** Follows the queue from where polling was, if there is room. */
  function promote(polled: PolledQueue, isEventless = false): TrackedFeed | undefined {
    const { queue, position, retainCount } = polled
    const feed = feeds.open(queue, position, isEventless)
    if (!feed) return undefined
    feed.retainCount = retainCount
    polledQueues.remove(queue)
    return feed
  }

  function openSource(queue: string, { exists, position, isEventless }: QueueProbe) {
    const feed = exists ? feeds.open(queue, position, isEventless) : undefined
    return feed ?? polledQueues.add(queue, { exists, position, isEventless })
  }

  function release(queue: string): void {
    // The queue may have got its feed meanwhile.
    const source = sourceOf(queue)
    if (!source) return
    source.retainCount--
    source.usedAtMs = now()
    if (source.retainCount === 0) polledQueues.remove(queue)
  }

  return {
    async retain(queue, onOpen) {
      const found = sourceOf(queue) ? undefined : await probeOne(queue)
      const position = found?.position ?? STREAM_START
      const source = sourceOf(queue) ?? openSource(queue, found!)
      const onClose = onOpen()
      source.retainCount++
      let isOpen = true
      return {
        position: isAfter(position, source.position) ? position : source.position,
        isLive: () => feeds.get(queue)?.isLive ?? polledQueues.isLive(),
        close() {
          if (!isOpen) return
          isOpen = false
          onClose()
          release(queue)
        },
      }
    },
    follow(queue, position) {
      const feed = feeds.get(queue)
      // A polled queue gets its feed from the next poll, which knows from where its subscriptions need events.
      if (!feed) return polledQueues.get(queue) ? undefined : feeds.open(queue, position)
      feed.usedAtMs = now()
      return feed
    },
    noteStored(queue) {
      const polled = polledQueues.get(queue)
      if (polled && !polled.exists) promote(polled)
    },
    stats() {
      const { subscribers, ...polled } = polledQueues.stats()
      return { ...polled, subscribers: subscribers + retainedOf(feeds) }
    },
    close: polledQueues.close,
  }
}

/** Concurrent callers for one queue share a command. */
function shareByQueue<T>(read: (queue: string) => Promise<T>): (queue: string) => Promise<T> {
  const pending = new Map<string, Promise<T>>()
  return (queue) => {
    let reading = pending.get(queue)
    if (!reading) {
      reading = read(queue).finally(() => pending.delete(queue))
      pending.set(queue, reading)
    }
    return reading
  }
}

function retainedOf(feeds: FeedRegistry): number {
  let count = 0
  for (const { retainCount } of feeds.all()) count += retainCount
  return count
}
