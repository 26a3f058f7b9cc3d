/**
 * Positions in a Redis stream: entry ids such as `1700000000000-0`, milliseconds followed by a sequence
 * number. Also decides whether a reader at a position may have missed entries. Pure.
 */

/** The position before the first entry of any stream. */
export const STREAM_START = '0-0'

/** Whether position `a` comes after `b`. */
export function isAfter(a: string, b: string): boolean {
  if (a === b) return false
  const dashA = a.indexOf('-')
  const dashB = b.indexOf('-')
  const msA = Number(a.slice(0, dashA))
  const msB = Number(b.slice(0, dashB))
  return msA === msB ? Number(a.slice(dashA + 1)) > Number(b.slice(dashB + 1)) : msA > msB
}

/** When the entry was added, by Redis' clock, ms since 1970. */
export function millisecondsOf(position: string): number {
  return Number(position.slice(0, position.indexOf('-')))
}

/** What Redis reports about one key that should be a stream. */
export type StreamFacts =
  /** The key does not exist. */
  | { kind: 'none' }
  /** The key has another type. */
  | { kind: 'other' }
  | {
      kind: 'stream'
      /** `undefined` while the stream is empty. */
      firstId: string | undefined
      /** The last id ever added, even if that entry was trimmed. */
      lastId: string
      length: number
      /** Entries ever added; -1 before Redis 7. */
      added: number
    }

/** What the reader knows about a stream from earlier reads and checks. */
export interface KnownPosition {
  /** The last entry that was read. */
  position: string
  /** `length` and `added` of the last check; `undefined` before the first. */
  length?: number
  added?: number
}

/**
 * Why entries may be missing between those already read and the next ones.
 *   trimmed   entries after the reader's position were trimmed
 *   reset     the stream was deleted and created again, or a failover lost its end
 *   vanished  the stream no longer exists
 *   other     the key holds a value of another type
 */
export type Gap = 'trimmed' | 'reset' | 'vanished' | 'other'

/**
 * Trimming alone never halves a stream longer than this between two checks. Used before Redis 7, which has no
 * `added`.
 */
const SHORT_STREAM = 200

/** Returns `undefined` when no entry is missing. */
export function detectGap(known: KnownPosition, facts: StreamFacts): Gap | undefined {
  if (facts.kind === 'other') return 'other'
  if (facts.kind === 'none') return known.position === STREAM_START ? undefined : 'vanished'
  const { firstId, lastId, length, added } = facts
  if (isAfter(known.position, lastId)) return 'reset'
  if (known.added !== undefined && known.added >= 0) {
    if (added < known.added) return 'reset'
  } else if (known.length !== undefined && known.length > SHORT_STREAM && length < known.length / 2) {
    return 'reset'
  }
  // Not even from the start can entries be read that were trimmed as they were added.
  if (length > 0 && known.position === STREAM_START) return undefined
  return isAfter(firstId ?? lastId, known.position) ? 'trimmed' : undefined
}
