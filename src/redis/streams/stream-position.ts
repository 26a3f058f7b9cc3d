/**
 * Places in a Redis stream (`1700000000000-0`: milliseconds, then a number within them), and what a look at a stream
 * says about a reader's place in it. Pure.
 */

/** Before the first entry of any stream. */
export const STREAM_START = '0-0'

/** Whether `a` comes after `b`. */
export function isAfter(a: string, b: string): boolean {
  if (a === b) return false
  const dashA = a.indexOf('-')
  const dashB = b.indexOf('-')
  const msA = Number(a.slice(0, dashA))
  const msB = Number(b.slice(0, dashB))
  return msA === msB ? Number(a.slice(dashA + 1)) > Number(b.slice(dashB + 1)) : msA > msB
}

/** Redis' clock when the entry was added, ms. */
export function millisecondsOf(place: string): number {
  return Number(place.slice(0, place.indexOf('-')))
}

/** What inspect-streams.lua says of one stream. */
export type StreamFacts =
  | [kind: 'none']
  | [kind: 'other']
  | [kind: 'stream', first: string, last: string, length: number, added: number]

/** What the reader knows of a stream from before. */
export interface KnownPosition {
  /** Up to here everything has been read. */
  position: string
  /** Entries in it, and entries ever added, at the last look; `undefined` before the first, `added` -1 before Redis 7. */
  length?: number
  added?: number
}

/**
 * Why entries may be missing between what was read and what will be, or `undefined`.
 *   trimmed: it was cut beyond the reader's place      reset: it is not the stream it was (deleted, or a failover lost its end)
 *   vanished: it is gone                               other: its key holds something that is no stream
 */
export type Gap = 'trimmed' | 'reset' | 'vanished' | 'other'

/** Before Redis 7 nothing counts what was ever added; a stream that lost half of itself was not merely trimmed. */
const SHORT_STREAM = 200

export function detectGap(known: KnownPosition, facts: StreamFacts): Gap | undefined {
  if (facts[0] === 'other') return 'other'
  if (facts[0] === 'none') return known.position === STREAM_START ? undefined : 'vanished'
  const [, first, last, length, added] = facts
  if (isAfter(known.position, last)) return 'reset'
  if (known.added !== undefined && known.added >= 0) {
    if (added < known.added) return 'reset'
  } else if (known.length !== undefined && known.length > SHORT_STREAM && length < known.length / 2) {
    return 'reset'
  }
  if (known.position === STREAM_START) return undefined
  const trimmedPast = first === '' ? isAfter(last, known.position) : isAfter(first, known.position)
  return trimmedPast ? 'trimmed' : undefined
}
