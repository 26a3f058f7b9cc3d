/**
 * Encodes the start of the next page as an opaque cursor, and validates the cursors that clients send back. They are not
 * signed: a forged one reveals nothing of the queue that the client could not list anyway.
 */

import type { JobState } from '../../bullmq/job-states.ts'
import { SluiceError } from '../../errors.ts'
import { type Bookmark, isBookmark, type PageStart } from '../../redis/scripts/list-jobs.ts'
import { CURSOR_MAX_LENGTH } from './schemas.ts'

/** The query that a cursor belongs to. */
export interface CursorQuery {
  queue: string
  /** `undefined`: every state. */
  state?: JobState | undefined
}

/** Raise it when the meaning of a bookmark changes. */
const CURSOR_VERSION = 1

/** At most as long as a request may carry it, however long the ids of the queue are. */
export function encodeCursor(query: CursorQuery, { collection, bookmark }: PageStart): string {
  let text = encode(query, collection, bookmark)
  for (let rest = bookmark; text.length > CURSOR_MAX_LENGTH; ) {
    rest = shorten(rest)
    text = encode(query, collection, rest)
  }
  return text
}

function encode({ queue, state }: CursorQuery, collection: string, bookmark: Bookmark): string {
  const values = [CURSOR_VERSION, queue, state ?? null, collection, ...bookmark]
  return Buffer.from(JSON.stringify(values)).toString('base64url')
}

/**
 * Shortens the longest id. In a list any of several ids finds the next page, and none is empty, so it is left out. In a
 * sorted set the id is a position among jobs of the same millisecond, for which its beginning is enough unless they share it.
 */
function shorten(bookmark: Bookmark): Bookmark {
  const isOfSet = typeof bookmark[0] === 'string'
  const lengths = bookmark.map((value) => (typeof value === 'string' ? value.length : 0))
  const longest = lengths.indexOf(Math.max(...lengths))
  const id = String(bookmark[longest])
  const shorter = isOfSet ? id.slice(0, Math.floor(id.length / 2)).replace(/[\ud800-\udbff]$/, '') : ''
  return bookmark.with(longest, shorter)
}

/** `collections`: those that the query reads. Throws INVALID_REQUEST. */
export function decodeCursor(text: string, { queue, state }: CursorQuery, collections: string[]): PageStart {
  const [version, cursorQueue, cursorState, collection, ...bookmark] = parse(text)
  if (version !== CURSOR_VERSION || typeof collection !== 'string' || !isBookmark(collection, bookmark)) {
    throw invalid(
      'is not a valid cursor. Send the cursor of the previous page unchanged, or omit it to start over.',
    )
  }
  if (cursorQueue !== queue || cursorState !== (state ?? null) || !collections.includes(collection)) {
    throw invalid(
      'belongs to another query. Send it with the queue and state that it came from, or omit it to start over.',
    )
  }
  return { collection, bookmark }
}

function parse(text: string): unknown[] {
  if (text.length > CURSOR_MAX_LENGTH) return []
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    return Array.isArray(value) ? value : []
  } catch {
    return []
  }
}

function invalid(detail: string): SluiceError {
  return new SluiceError('INVALID_REQUEST', { errors: [{ pointer: '?cursor', detail }] })
}
