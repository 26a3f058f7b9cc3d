/**
 * A look at the streams that are read (inspect-streams.lua): has any of them lost entries before they were read, or been
 * replaced by another under the same key? A key of our own that only a flush takes away tells a flush even when the
 * streams are there again.
 */
import { randomUUID } from 'node:crypto'
import {
  detectGap,
  type Gap,
  isAfter,
  type KnownPosition,
  STREAM_START,
  type StreamFacts,
} from './stream-position.ts'

export interface WatchedStream extends KnownPosition {
  /** It is part of the read under way, or of the last. */
  joined: boolean
  /** Its key holds something that is no stream: one such key would fail the read of all. */
  broken: boolean
  /** The place before a read that may have followed a trim. */
  doubtfulSince: string | undefined
}

export type StreamGap = Gap | 'flushed'

export interface GapReport {
  /** Our clock less Redis' clock, ms. */
  clockOffsetMs: number
  found: [key: string, finding: StreamGap][]
}

/** A look at this many takes Redis about half a millisecond. */
const STREAMS_AT_ONCE = 100

/** What comes back also brings each stream up to date with what was seen of it. */
export function createGapDetector(
  epochKey: string,
  runCheck: (keys: string[], args: string[]) => Promise<unknown>,
): (streams: ReadonlyMap<string, WatchedStream>) => Promise<GapReport> {
  let epoch: string | undefined

  async function ask(keys: string[]) {
    const askedAt = Date.now()
    const reply = await runCheck([epochKey, ...keys], [randomUUID()])
    const [epochNow, redisMs, facts] = reply as [string, number, StreamFacts[]]
    return { epochNow, facts, clockOffsetMs: (askedAt + Date.now()) / 2 - redisMs }
  }

  return async (streams) => {
    const all = [...streams]
    const facts: StreamFacts[] = []
    let clockOffsetMs = 0
    let flushed = false
    // First everything is asked, then judged: what a look finds is told whole, or else the next look finds it again.
    let epochSeen = epoch
    for (let from = 0; from < all.length; from += STREAMS_AT_ONCE) {
      const reply = await ask(all.slice(from, from + STREAMS_AT_ONCE).map(([key]) => key))
      facts.push(...reply.facts)
      clockOffsetMs = reply.clockOffsetMs
      // Where nothing may be written there is no key of ours.
      if (reply.epochNow === '') continue
      flushed ||= epochSeen !== undefined && reply.epochNow !== epochSeen
      epochSeen = reply.epochNow
    }
    epoch = epochSeen
    const found: GapReport['found'] = []
    for (const [index, [key, stream]] of all.entries()) {
      const gap = judge(stream, facts[index]!)
      const finding = flushed && stream.joined ? 'flushed' : gap
      if (finding !== undefined) found.push([key, finding])
    }
    return { clockOffsetMs, found }
  }
}

function judge(stream: WatchedStream, facts: StreamFacts): Gap | undefined {
  const { doubtfulSince, broken } = stream
  const gap =
    detectGap(stream, facts) ??
    (doubtfulSince === undefined ? undefined : detectGap({ position: doubtfulSince }, facts))
  stream.doubtfulSince = undefined
  stream.broken = gap === 'other'
  if (facts[0] === 'stream') {
    const [, , last, length, added] = facts
    stream.length = length
    stream.added = added
    // After a failover new entries may come before the place that had been reached.
    if (isAfter(stream.position, last)) stream.position = last
  } else {
    delete stream.length
    delete stream.added
    stream.position = STREAM_START
  }
  // That a key is no stream is told once.
  return gap === 'other' && broken ? undefined : gap
}
