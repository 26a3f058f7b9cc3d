/**
 * Collects values from earlier responses (cursors, ETags, event positions) and fills them into requests that contain a
 * placeholder: a generator cannot guess such values, and some code only runs with them.
 */
import type { HttpResponse } from './clients.ts'
import type { LeaseBook } from './lease-book.ts'
import type { Case } from './operations.ts'
import { ENDPOINT_PORT } from './urls.ts'

export const NEXT_PAGE = '@next'
export const SEEN_ETAG = '"@seen"'
export const SEEN_POSITION = '@position'

/** The values of one operation, and those that it shares with the others. */
export interface SeenValues {
  note(testCase: Case, response: HttpResponse): void
  /** Fills in the placeholders; returns the request unchanged while no value is known. */
  fill(testCase: Case): Case
}

/** How many values of each kind are kept, the latest, because most of these are still valid. */
const KEPT = 20

/** Values that all operations share. */
export interface Shared {
  leases: LeaseBook
  endpointPort: number
}

export function createSeenValues(operationId: string, { leases, endpointPort }: Shared): SeenValues {
  const pages = createPool<string>()
  const tags = createPool<{ url: string; etag: string }>()
  const positions = createPool<{ url: string; position: string }>()

  return {
    note({ url }, { status, headers, body }) {
      if (status !== 200) return
      const { etag } = headers
      if (typeof etag === 'string') tags.put({ url, etag })
      const [, cursor] = /"cursor":"([\w-]+)"/.exec(body) ?? []
      if (cursor) pages.put(withCursor(url, cursor))
      const [, position] = /^id: (\S+)$/m.exec(body) ?? []
      if (position) positions.put({ url, position })
    },
    fill(testCase) {
      const { headers } = testCase
      if (testCase.url.includes(encodeURIComponent(NEXT_PAGE)))
        return { ...testCase, url: pages.take() ?? testCase.url }
      if (headers['if-none-match'] === SEEN_ETAG) {
        const { url, etag } = tags.take() ?? { url: testCase.url, etag: '*' }
        return { ...testCase, url, headers: { ...headers, 'if-none-match': etag } }
      }
      if (headers['last-event-id'] === SEEN_POSITION) {
        const { url, position } = positions.take() ?? { url: testCase.url, position: '0-0' }
        return { ...testCase, url, headers: { ...headers, 'last-event-id': position } }
      }
      const { payload } = testCase
      if (payload?.includes(`:${ENDPOINT_PORT}`))
        return { ...testCase, payload: payload.replaceAll(`:${ENDPOINT_PORT}`, `:${endpointPort}`) }
      return leases.fill(testCase, operationId === 'settleLeases')
    },
  }
}

/** Round robin over the values. */
function createPool<T>() {
  const all: T[] = []
  let next = 0
  return {
    put(value: T) {
      if (all.push(value) > KEPT) all.shift()
    },
    take: (): T | undefined => all[next++ % Math.max(1, all.length)],
  }
}

function withCursor(url: string, cursor: string): string {
  const next = new URL(url, 'http://x')
  next.searchParams.set('cursor', cursor)
  return next.pathname + next.search
}
