/**
 * Delays the answers to refused requests while more than MAX_REFUSALS_PER_SECOND are refused. A refusal is cheap, but a flood
 * of them takes the event loop from everything else. Delayed answers slow down a client that waits for them, and one that
 * does not wait exceeds MAX_PIPELINED_REQUESTS and is disconnected.
 */

export interface RefusalPace {
  /** Calls `respond`, at once or later. False: too many wait already; it was called, and the connection should be closed. */
  send(respond: () => void): boolean
  /** Answers that were delayed since the start. */
  delayed(): number
  /** Sends all delayed answers. */
  close(): void
}

const DELAY_MAX_MS = 5_000
/** A burst of this part of a second's refusals is answered at once. */
const BURST_SECONDS = 0.1
/** Each holds a request. */
const WAITING_MAX = 10_000

/** `maxPerSecond` 0: no answer is delayed. */
export function createRefusalPace(maxPerSecond: number): RefusalPace {
  const waiting = new Map<() => void, NodeJS.Timeout>()
  /** Refusals above the rate, as of `countedAtMs`. */
  let excess = 0
  let countedAtMs = performance.now()
  let delayedCount = 0
  let isClosed = false

  function count(): number {
    const nowMs = performance.now()
    excess = Math.max(0, excess - ((nowMs - countedAtMs) * maxPerSecond) / 1_000) + 1
    countedAtMs = nowMs
    const beyondBurst = excess - maxPerSecond * BURST_SECONDS
    return beyondBurst <= 0 ? 0 : Math.min(DELAY_MAX_MS, (beyondBurst / maxPerSecond) * 1_000)
  }

  return {
    send(respond) {
      const delayMs = maxPerSecond === 0 || isClosed ? 0 : count()
      const isFull = waiting.size >= WAITING_MAX
      if (delayMs === 0 || isFull) {
        respond()
        return delayMs === 0
      }
      delayedCount++
      const sendLater = () => {
        waiting.delete(sendLater)
        respond()
      }
      waiting.set(sendLater, setTimeout(sendLater, delayMs))
      return true
    },
    delayed: () => delayedCount,
    close() {
      isClosed = true
      for (const [sendLater, timer] of [...waiting]) {
        clearTimeout(timer)
        sendLater()
      }
    },
  }
}
