/**
 * What the answers have told so far (the next page, an ETag, the place of an event, a lease), for requests that ask for it
 * with a placeholder: no generator could think of such a value, and what lies behind it is only reached with one.
 */
import type { Answer } from './clients.ts'
import type { LeaseBook } from './lease-book.ts'
import type { Case } from './operations.ts'
import { RECEIVER_PORT } from './urls.ts'

export const NEXT_PAGE = '@next'
export const SEEN_ETAG = '"@seen"'
export const SEEN_PLACE = '@place'

/** Of the answers of one operation, but for what it shares with the others. */
export interface Memory {
  note(asked: Case, answer: Answer): void
  /** With the placeholder filled in; as it was given while nothing is known. */
  recall(asked: Case): Case
}

/** The latest of each kind, so that most of them still hold. */
const KEPT = 20

/** What all operations know. */
export interface Shared {
  leases: LeaseBook
  receiverPort: number
}

export function createMemory(operationId: string, { leases, receiverPort }: Shared): Memory {
  const pages = createPool<string>()
  const tags = createPool<{ url: string; etag: string }>()
  const places = createPool<{ url: string; place: string }>()

  return {
    note({ url }, { status, headers, body }) {
      if (status !== 200) return
      const { etag } = headers
      if (typeof etag === 'string') tags.put({ url, etag })
      const [, cursor] = /"cursor":"([\w-]+)"/.exec(body) ?? []
      if (cursor) pages.put(withCursor(url, cursor))
      const [, place] = /^id: (\S+)$/m.exec(body) ?? []
      if (place) places.put({ url, place })
    },
    recall(asked) {
      const { headers } = asked
      if (asked.url.includes(encodeURIComponent(NEXT_PAGE)))
        return { ...asked, url: pages.take() ?? asked.url }
      if (headers['if-none-match'] === SEEN_ETAG) {
        const { url, etag } = tags.take() ?? { url: asked.url, etag: '*' }
        return { ...asked, url, headers: { ...headers, 'if-none-match': etag } }
      }
      if (headers['last-event-id'] === SEEN_PLACE) {
        const { url, place } = places.take() ?? { url: asked.url, place: '0-0' }
        return { ...asked, url, headers: { ...headers, 'last-event-id': place } }
      }
      const { payload } = asked
      if (payload?.includes(`:${RECEIVER_PORT}`))
        return { ...asked, payload: payload.replaceAll(`:${RECEIVER_PORT}`, `:${receiverPort}`) }
      return leases.fill(asked, operationId === 'settleLeases')
    },
  }
}

/** One after the other, and round again. */
function createPool<T>() {
  const all: T[] = []
  let turn = 0
  return {
    put(value: T) {
      if (all.push(value) > KEPT) all.shift()
    },
    take: (): T | undefined => all[turn++ % Math.max(1, all.length)],
  }
}

function withCursor(url: string, cursor: string): string {
  const next = new URL(url, 'http://x')
  next.searchParams.set('cursor', cursor)
  return next.pathname + next.search
}
