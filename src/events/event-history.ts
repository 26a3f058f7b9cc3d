/**
 * Reads past events of a queue, as far back as its stream goes (BullMQ keeps about 10,000 events per queue), page by page
 * on the `admin` connection, so that no job waits for it. A page is bounded in bytes, because events carry the results of
 * jobs; only one event may be larger than a page.
 */
import type { ByteBudget } from '../redis/gateway/byte-budget.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { readEvents } from '../redis/scripts/read-events.ts'
import { isAfter } from '../redis/streams/stream-position.ts'
import type { FollowedEvent } from './event-frames.ts'
import { parseEntry } from './queue-events.ts'

export interface EventHistory {
  /**
   * Yields the events after `after`, up to and including `upTo`, in pages. `undefined`: `after` is no longer in the
   * stream, so events may be missing. A last page `gap`: events after the page before it may be missing. Rejects with a
   * SluiceError when Redis fails.
   */
  since(
    queue: string,
    after: string,
    upTo: string,
  ): Promise<AsyncIterable<FollowedEvent[] | 'gap'> | undefined>
}

export interface EventHistoryDeps {
  keyspace: Keyspace
  gateway: RedisGateway
  byteBudget: ByteBudget
  /** MAX_ANSWER_BYTES: the most bytes of one event. */
  maxEventBytes: number
}

const PAGE_SIZE = 500
const PAGE_BYTES = 262_144

const HISTORY: RedisOperation = { label: 'eventHistory', priority: 'list', isWrite: false, commands: 1 }

/** An entry's id as clients receive it. */
const ENTRY_ID = /^\d{1,15}-\d{1,15}$/

interface HistoryPage {
  /** The first is the one from which the page was read, without its fields. */
  events: FollowedEvent[]
  hasMore: boolean
}

export function createEventHistory(deps: EventHistoryDeps): EventHistory {
  const { keyspace, gateway, byteBudget, maxEventBytes } = deps

  /** `from` is included. */
  async function readPage(queue: string, from: string): Promise<HistoryPage> {
    const limits = { maxEntries: PAGE_SIZE, maxBytes: PAGE_BYTES, maxEntryBytes: maxEventBytes }
    return byteBudget.hold(maxEventBytes, async () => {
      const { entries, hasMore } = await gateway.onAdmin(HISTORY, (client) =>
        readEvents(client, keyspace.eventStream(queue), { from, ...limits }),
      )
      return { events: entries.map((entry) => parseBounded(queue, entry)), hasMore }
    })
  }

  async function* pages(queue: string, first: HistoryPage, upTo: string) {
    let { events, hasMore } = first
    for (;;) {
      const page = events.slice(1).filter(({ id }) => !isAfter(id, upTo))
      const last = events.at(-1)!.id
      // The client may be slow: what it has received is not kept until the next page.
      events = []
      if (page.length > 0) yield page
      if (!hasMore || !isAfter(upTo, last)) return
      ;({ events, hasMore } = await readPage(queue, last))
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
      return first.events[0]?.id === after ? pages(queue, first, upTo) : undefined
    },
  }
}

/** A number stands for a text that was too long. */
function parseBounded(queue: string, [id, list]: [string, (string | number)[]]): FollowedEvent {
  const texts: string[] = []
  const tooLong: string[] = []
  for (let i = 0; i < list.length; i += 2) {
    const [name, value] = [`${list[i]}`, list[i + 1]]
    if (typeof value === 'string') texts.push(name, value)
    else tooLong.push(name)
  }
  const event: FollowedEvent = parseEntry(queue, [id, texts])
  if (tooLong.length > 0) event.tooLong = tooLong
  return event
}
