/** Reads a page of a queue's event stream, bounded by entries and bytes (read-events.lua). */
import type { Redis } from 'ioredis'
import { loadScript, runScript } from './run-script.ts'

const readEventsScript = loadScript('read-events')

export interface ReadEventsRequest {
  /** Id of the first entry. Its values are left out, because the caller has them. */
  from: string
  maxEntries: number
  /** Most bytes of the page; the first entry after `from` may exceed it. */
  maxBytes: number
  /** Most bytes of one entry. */
  maxEntryBytes: number
}

export interface EventsPage {
  /** Names and values in turn. A number is the size of a text that was left out. */
  entries: [id: string, list: (string | number)[]][]
  /** More entries may follow. */
  hasMore: boolean
}

/** Sends one command; rejects as Redis does. */
export async function readEvents(
  client: Redis,
  stream: string,
  { from, maxEntries, maxBytes, maxEntryBytes }: ReadEventsRequest,
): Promise<EventsPage> {
  const args = [from, maxEntries, maxBytes, maxEntryBytes]
  const reply = await runScript(client, readEventsScript, [stream], args)
  const [entries, hasMore] = reply as [EventsPage['entries'], number]
  return { entries, hasMore: hasMore === 1 }
}
