/**
 * The states of the stream reader and their transitions, as plain values. Times are in ms of one monotonic
 * clock.
 *
 *   idle ─ reading started ─→ catching up ─ read completed ─→ live ─ reading stopped ─→ idle
 *     any state ─ connection lost, timeout, error ─→ degraded ─ read completed ─→ live
 */
import type { WatchedStream } from './gap-detector.ts'
import { MAX_ENTRIES } from './read-size.ts'

export interface ReaderState {
  readonly phase: 'idle' | 'catching up' | 'live' | 'degraded'
  /** Set while degraded. */
  readonly reason: string | null
  /** Reads in a row have returned full batches of many entries, so the next entries are already late. */
  readonly isBehind: boolean
  /** Entries of one stream in these reads; 0: the last read returned everything there was. */
  readonly backlog: number
  /** `backlog` before the last reply. */
  readonly backlogBefore: number
}

export interface ReadStream extends WatchedStream {
  addedAt: number
}

export const IDLE: ReaderState = {
  phase: 'idle',
  reason: null,
  isBehind: false,
  backlog: 0,
  backlogBefore: 0,
}

export function readingStarted(state: ReaderState): ReaderState {
  return state.phase === 'idle' ? { ...state, phase: 'catching up' } : state
}

export function replyArrived(state: ReaderState): ReaderState {
  if (state.backlog === 0 && state.backlogBefore === 0) return state
  return { ...state, isBehind: false, backlog: 0, backlogBefore: state.backlog }
}

/** One stream of the reply holds `entryCount` of at most `countMax` entries. */
export function entriesReceived(state: ReaderState, entryCount: number, countMax: number): ReaderState {
  if (entryCount < countMax) return state
  const backlog = Math.max(state.backlog, state.backlogBefore + entryCount)
  return { ...state, backlog, isBehind: backlog >= MAX_ENTRIES }
}

/** Every entry of the reply has been delivered. A reader that catches up goes on until a reply has everything. */
export function readCompleted(state: ReaderState): ReaderState {
  if (state.phase === 'live' || (state.phase === 'catching up' && state.backlog > 0)) return state
  return { ...state, phase: 'live', reason: null }
}

/** Without streams, a failure delays no events, so the reader is idle. */
export function readingFailed(state: ReaderState, reason: string, streamCount: number): ReaderState {
  return streamCount > 0 ? { ...state, phase: 'degraded', reason } : { ...state, phase: 'idle', reason: null }
}

export function lastStreamRemoved(state: ReaderState): ReaderState {
  return state.phase === 'degraded' ? { ...state, phase: 'idle', reason: null } : state
}

export function readingStopped(state: ReaderState): ReaderState {
  return state.phase === 'degraded' ? state : { ...state, phase: 'idle' }
}

/** An idle reader sends one read and one check in this time. */
const BLOCK_MS = 2_000
/** Used where CLIENT UNBLOCK is not allowed: a new stream has to wait for the read to end. */
const UNINTERRUPTIBLE_BLOCK_MS = 80

/**
 * How long the next read may block, ms. 0: not at all, because its reply shows whether the reader has caught
 * up.
 */
export function blockMs(state: ReaderState, canInterrupt: boolean): number {
  if (state.phase !== 'live' || state.backlog > 0) return 0
  return canInterrupt ? BLOCK_MS : UNINTERRUPTIBLE_BLOCK_MS
}

/** A stream counts as live for this long before its first read. */
const JOIN_MS = 100

/** Whether a new entry of the stream reaches the reader within a moment. */
export function isStreamLive(
  state: ReaderState,
  stream: ReadStream | undefined,
  isConnected: boolean,
  now: number,
): boolean {
  if (!stream || stream.broken || stream.eventless || state.isBehind || state.phase === 'degraded')
    return false
  if (state.phase === 'live' && stream.joined) return true
  return isConnected && state.backlog === 0 && now - stream.addedAt < JOIN_MS
}

export interface ReaderHealth {
  /**
   * idle: no streams to read. live: events arrive. degraded: events arrive late or not at all; `reason` says
   * why.
   */
  status: 'idle' | 'live' | 'degraded'
  reason: string | null
}

export const CONNECTION_LOST = 'The events connection is lost'

export function readerHealth(state: ReaderState, streamCount: number, isConnected: boolean): ReaderHealth {
  if (streamCount === 0) return { status: 'idle', reason: null }
  const lost = state.phase !== 'live' && !isConnected ? CONNECTION_LOST : null
  const reason = state.isBehind ? 'Events arrive faster than they are read' : (state.reason ?? lost)
  return { status: reason === null ? 'live' : 'degraded', reason }
}

/** BullMQ trims whole nodes of about a hundred entries, so a shorter read cannot have followed a trim. */
const NODE_ENTRIES = 100

/**
 * Whether entries before those of this read may have been trimmed unread. `length`: of the stream at the last
 * check. A read of `countMax` entries may have been cut off.
 */
export function mayFollowTrim(entryCount: number, length = 0, countMax = MAX_ENTRIES): boolean {
  return entryCount >= Math.min(countMax, Math.max(NODE_ENTRIES / 2, length - NODE_ENTRIES))
}

export function isReadable({ broken, eventless }: ReadStream): boolean {
  return !broken && !eventless
}

export function hasReadableStream(streams: ReadonlyMap<string, ReadStream>): boolean {
  for (const stream of streams.values()) if (isReadable(stream)) return true
  return false
}

/** Whether a wanted stream is not part of the read in progress. */
export function hasUnreadStream(streams: ReadonlyMap<string, ReadStream>): boolean {
  for (const stream of streams.values()) if (!stream.joined && isReadable(stream)) return true
  return false
}

export function hasUnverifiedStream(streams: ReadonlyMap<string, ReadStream>): boolean {
  for (const { unverifiedSince } of streams.values()) if (unverifiedSince !== undefined) return true
  return false
}
