/** Opens and closes feeds, at most `maxQueues` whatever they are opened for, on one stream reader. */
import type { Keyspace } from '../redis/keyspace.ts'
import type { StreamReader } from '../redis/streams/stream-reader.ts'
import { type FeedUse, idlestOf, isExpired } from './feed-state.ts'

export interface Feed {
  readonly queue: string
  /** Whether events of this queue arrive within a moment. */
  readonly isLive: boolean
  /** Changes with every gap, when events may be missing. */
  readonly epoch: number
  /** The feed was closed because it was not used; it does not reopen. */
  readonly isClosed: boolean
  /** Id of the last event that was delivered. */
  readonly position: string
  /** In the time of performance.now(). Set it when serving a response that relies on this feed. */
  usedAtMs: number
}

/** The registry's own view of a feed; `queue-events.ts` advances `epoch` and `position`. */
export interface TrackedFeed extends Feed, FeedUse {
  stream: string
  epoch: number
  isClosed: boolean
  position: string
}

export interface FeedRegistry {
  get(queue: string): TrackedFeed | undefined
  all(): Iterable<TrackedFeed>
  /**
   * Opens a feed of the events after `position`, if need be in place of an idle one; `undefined` if none is idle.
   * `isEventless`: the queue is known to keep no events.
   */
  open(queue: string, position: string, isEventless?: boolean): TrackedFeed | undefined
  /** Stops the sweep; the reader is closed by its owner. */
  close(): void
}

export interface FeedRegistryDeps {
  keyspace: Keyspace
  /** Most queues followed at once; each makes every read slower by half a microsecond. */
  maxQueues: number
  reader: Pick<StreamReader, 'add' | 'remove' | 'isLive'>
  now(): number
}

const SWEEP_MS = 5_000

export function createFeedRegistry({ keyspace, maxQueues, reader, now }: FeedRegistryDeps): FeedRegistry {
  const feeds = new Map<string, TrackedFeed>()
  let sweeper: NodeJS.Timeout | undefined

  function open(queue: string, position: string, isEventless = false): TrackedFeed | undefined {
    if (!reserve()) return undefined
    const stream = keyspace.eventStream(queue)
    const feed: TrackedFeed = {
      queue,
      stream,
      position,
      epoch: 0,
      isClosed: false,
      usedAtMs: now(),
      retainCount: 0,
      get isLive() {
        return reader.isLive(stream)
      },
    }
    feeds.set(queue, feed)
    reader.add(stream, position, isEventless)
    sweeper ??= setInterval(sweep, SWEEP_MS)
    return feed
  }

  function closeFeed(feed: TrackedFeed): void {
    feed.isClosed = true
    feeds.delete(feed.queue)
    reader.remove(feed.stream)
  }

  function sweep(): void {
    const nowMs = now()
    for (const feed of feeds.values()) if (isExpired(feed, nowMs)) closeFeed(feed)
    if (feeds.size > 0) return
    clearInterval(sweeper)
    sweeper = undefined
  }

  function reserve(): boolean {
    if (feeds.size < maxQueues) return true
    const idlest = idlestOf(feeds.values(), now())
    if (!idlest) return false
    closeFeed(idlest)
    return true
  }

  return {
    get: (queue) => feeds.get(queue),
    all: () => feeds.values(),
    open,
    close: () => clearInterval(sweeper),
  }
}
