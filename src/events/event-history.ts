/**
 * Events that somebody missed, as far as the queue's stream still holds them (BullMQ keeps about 10,000 a queue). On the
 * `admin` connection, a page at a time, so that nobody's job waits for it.
 */

import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { isAfter } from '../redis/streams/stream-position.ts'
import { parseEntry, type QueueEvent } from './queue-events.ts'

export interface EventHistory {
  /**
   * Pages of what came after the event `after`, up to and with `upTo`. `undefined`: `after` is not in the stream any more,
   * so nobody can say what is missing; the same holds for what comes after a page that is `gap`.
   */
  since(queue: string, after: string, upTo: string): Promise<AsyncIterable<QueueEvent[] | 'gap'> | undefined>
}

const PAGE = 500

const HISTORY: RedisOperation = { label: 'eventHistory', priority: 'list', isWrite: false, commands: 1 }

/** The id of an entry, as an event stream gives it to its clients. */
const PLACE = /^\d{1,15}-\d{1,15}$/

export function createEventHistory(keyspace: Keyspace, gateway: RedisGateway): EventHistory {
  /** From `from` on, that one included. */
  async function page(queue: string, from: string): Promise<QueueEvent[]> {
    const entries = await gateway.onAdmin(HISTORY, (client) =>
      client.xrange(keyspace.eventStream(queue), from, '+', 'COUNT', PAGE),
    )
    return entries.map((entry) => parseEntry(queue, entry))
  }

  async function* pages(queue: string, first: QueueEvent[], upTo: string) {
    let events = first
    for (;;) {
      const wanted = events.slice(1).filter(({ id }) => !isAfter(id, upTo))
      if (wanted.length > 0) yield wanted
      const last = events.at(-1)!.id
      if (events.length < PAGE || !isAfter(upTo, last)) return
      events = await page(queue, last)
      // Trimmed meanwhile, as its reader was too slow.
      if (events[0]?.id !== last) {
        yield 'gap' as const
        return
      }
    }
  }

  return {
    async since(queue, after, upTo) {
      if (!PLACE.test(after)) return undefined
      const first = await page(queue, after)
      return first[0]?.id === after ? pages(queue, first, upTo) : undefined
    },
  }
}
