/**
 * Reads past events of a queue, as far back as its stream goes (BullMQ keeps about 10,000 events per queue), page by page
 * on the `admin` connection, so that no job waits for it.
 */
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { isAfter } from '../redis/streams/stream-position.ts'
import { parseEntry, type QueueEvent } from './queue-events.ts'

export interface EventHistory {
  /**
   * Yields the events after `after`, up to and including `upTo`, in pages. `undefined`: `after` is no longer in the
   * stream, so events may be missing. A last page `gap`: events after the page before it may be missing. Rejects with a
   * SluiceError when Redis fails.
   */
  since(queue: string, after: string, upTo: string): Promise<AsyncIterable<QueueEvent[] | 'gap'> | undefined>
}

const PAGE_SIZE = 500

const HISTORY: RedisOperation = { label: 'eventHistory', priority: 'list', isWrite: false, commands: 1 }

/** An entry's id as clients receive it. */
const ENTRY_ID = /^\d{1,15}-\d{1,15}$/

export function createEventHistory(keyspace: Keyspace, gateway: RedisGateway): EventHistory {
  /** `from` is included. */
  async function readPage(queue: string, from: string): Promise<QueueEvent[]> {
    const entries = await gateway.onAdmin(HISTORY, (client) =>
      client.xrange(keyspace.eventStream(queue), from, '+', 'COUNT', PAGE_SIZE),
    )
    return entries.map((entry) => parseEntry(queue, entry))
  }

  async function* pages(queue: string, first: QueueEvent[], upTo: string) {
    let events = first
    for (;;) {
      const page = events.slice(1).filter(({ id }) => !isAfter(id, upTo))
      if (page.length > 0) yield page
      const last = events.at(-1)!.id
      if (events.length < PAGE_SIZE || !isAfter(upTo, last)) return
      events = await readPage(queue, last)
      // The stream was trimmed, because the client is slow.
      if (events[0]?.id !== last) {
        yield 'gap' as const
        return
      }
    }
  }

  return {
    async since(queue, after, upTo) {
      if (!ENTRY_ID.test(after)) return undefined
      const first = await readPage(queue, after)
      return first[0]?.id === after ? pages(queue, first, upTo) : undefined
    },
  }
}
