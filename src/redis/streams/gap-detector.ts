/**
 * Checks whether the streams that are read have lost entries before these were read, or were replaced under
 * the same key. A marker key that only a flush of the database removes reveals a flush, even if the streams
 * exist again.
 */
import type { StreamInspection } from '../scripts/inspect-streams.ts'
import {
  detectGap,
  type Gap,
  isAfter,
  type KnownPosition,
  STREAM_START,
  type StreamFacts,
} from './stream-position.ts'

export interface WatchedStream extends KnownPosition {
  /** The stream is part of the current read, or was part of the last one. */
  joined: boolean
  /** The key holds another type. It is left out of the read, because one such key fails the whole XREAD. */
  broken: boolean
  /** The queue keeps no events: its entries are trimmed as they are added. It is left out of the read. */
  eventless: boolean
  /** Checks in a row at which an eventless stream had kept every new entry. */
  keptChecks: number
  /** Position before a read that may have skipped trimmed entries; the next check verifies it. */
  unverifiedSince: string | undefined
}

export type StreamGap = Gap | 'flushed'

export interface GapReport {
  /** performance.now() minus Redis' clock, ms. */
  clockOffsetMs: number
  gaps: [stream: string, gap: StreamGap][]
}

/** Inspecting this many streams blocks Redis for about half a millisecond. */
const STREAMS_PER_INSPECTION = 100

/**
 * The returned check updates each stream in place with what Redis reported. It rejects as `inspect` does, and
 * then changes nothing, so that the next check reports the same gaps.
 */
export function createGapDetector(
  inspect: (streams: string[]) => Promise<StreamInspection>,
): (streams: ReadonlyMap<string, WatchedStream>) => Promise<GapReport> {
  let epoch: string | undefined

  return async function checkStreams(streams) {
    const watched = [...streams]
    const facts: StreamFacts[] = []
    let clockOffsetMs = 0
    let flushed = false
    let lastEpoch = epoch
    // All streams are inspected before the first is changed.
    for (let from = 0; from < watched.length; from += STREAMS_PER_INSPECTION) {
      const sentAt = performance.now()
      const inspection = await inspect(watched.slice(from, from + STREAMS_PER_INSPECTION).map(([key]) => key))
      clockOffsetMs = (sentAt + performance.now()) / 2 - inspection.redisMs
      facts.push(...inspection.streams)
      if (inspection.epoch === undefined) continue
      flushed ||= lastEpoch !== undefined && inspection.epoch !== lastEpoch
      lastEpoch = inspection.epoch
    }
    epoch = lastEpoch
    const gaps: GapReport['gaps'] = []
    for (const [index, [key, stream]] of watched.entries()) {
      const ownGap = updateStream(stream, facts[index]!)
      const gap = flushed && stream.joined ? 'flushed' : ownGap
      if (gap !== undefined) gaps.push([key, gap])
    }
    return { clockOffsetMs, gaps }
  }
}

/** Brings the stream up to date and returns the gap to report. */
function updateStream(stream: WatchedStream, facts: StreamFacts): Gap | undefined {
  const { unverifiedSince, broken: wasBroken } = stream
  const gap =
    detectGap(stream, facts) ??
    (unverifiedSince === undefined ? undefined : detectGap({ position: unverifiedSince }, facts))
  stream.unverifiedSince = undefined
  stream.broken = gap === 'other'
  if (facts.kind === 'stream') {
    const hasGrown = isAfter(facts.lastId, stream.position)
    if (hasGrown && facts.length === 0) markEventless(stream)
    const isSkipped = stream.eventless
    if (isSkipped && hasGrown) noteGrowth(stream, facts)
    stream.length = facts.length
    stream.added = facts.added
    // After a failover, new entries may get ids before the position that was reached.
    if (isSkipped || facts.length === 0 || isAfter(stream.position, facts.lastId))
      stream.position = facts.lastId
    if (isSkipped && hasGrown) return gap ?? 'trimmed'
  } else {
    delete stream.length
    delete stream.added
    stream.position = STREAM_START
  }
  // A key of another type is reported once, not at every check.
  return gap === 'other' && wasBroken ? undefined : gap
}

/** As many checks as this must find every new entry before an eventless stream is read again. */
const KEPT_CHECKS = 5

export function markEventless(stream: WatchedStream): void {
  stream.eventless = true
  stream.keptChecks = 0
  stream.unverifiedSince = undefined
}

/** An eventless stream has new entries, some of which may have been trimmed already. */
function noteGrowth(stream: WatchedStream, { length, added }: StreamFacts & { kind: 'stream' }): void {
  const grownBy = length - (stream.length ?? 0)
  const hasKept = added >= 0 ? grownBy === added - (stream.added ?? added) : grownBy > 0
  stream.keptChecks = hasKept && grownBy > 0 ? stream.keptChecks + 1 : 0
  if (stream.keptChecks >= KEPT_CHECKS) stream.eventless = false
}
