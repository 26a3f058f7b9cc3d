/**
 * The life of a feed (the events of one queue that this process follows), as functions of plain values. A feed is
 *
 *   retained  by at least one subscription: it stays open
 *   busy      used within the last BUSY_MS: it stays open
 *   idle      closed when another queue needs its slot, the least recently used first
 *   expired   unused for LINGER_MS: closed by the sweep
 *   closed    for good; a queue that is followed again gets a new feed
 *
 * A gap starts a new epoch: events may be missing between two epochs.
 */

export interface FeedUse {
  /** Open subscriptions. */
  retainCount: number
  /** Ms since 1970. */
  usedAtMs: number
}

const BUSY_MS = 10_000
const LINGER_MS = 60_000

export function isExpired({ retainCount, usedAtMs }: FeedUse, nowMs: number): boolean {
  return retainCount === 0 && usedAtMs < nowMs - LINGER_MS
}

/** The least recently used feed, if it is idle. */
export function idlestOf<Feed extends FeedUse>(feeds: Iterable<Feed>, nowMs: number): Feed | undefined {
  let idlest: Feed | undefined
  for (const feed of feeds) {
    if (feed.retainCount === 0 && (!idlest || feed.usedAtMs < idlest.usedAtMs)) idlest = feed
  }
  return idlest && idlest.usedAtMs <= nowMs - BUSY_MS ? idlest : undefined
}
