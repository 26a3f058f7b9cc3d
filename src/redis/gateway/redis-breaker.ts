/**
 * Stops asking a Redis whose provider has said that its limit is reached: every further command would be refused, and may
 * be paid for. After a pause one command goes through to try it, alone; while it is refused, the pauses double.
 *
 *   closed → [refused for a limit] → open → [pause over] → one probe → closed, or open for twice as long
 */
import { SluiceError } from '../../errors.ts'

export interface RedisBreaker {
  /** Throws REDIS_LIMIT while it is open; of those who come when the pause is over, only the first gets through. */
  admit(): void
  /** A command was refused with this text, for a limit. */
  refused(text: string): void
  /** A command was answered. */
  answered(): void
  stats(): RedisBreakerStats
}

export interface RedisBreakerStats {
  open: boolean
  /** What the provider said last; `null` while it is closed. */
  reason: string | null
  /** Until one command may try it, ms. */
  retryInMs: number
  /** How often it has opened since the start. */
  opened: number
}

const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 60_000
/** A probe that is lost must not keep the breaker open for ever. */
const PROBE_MS = 5_000

export function createRedisBreaker(now: () => number = () => performance.now()): RedisBreaker {
  let state: 'closed' | 'open' | 'trying' = 'closed'
  let reason: string | null = null
  let pauseMs = 0
  let retryAt = 0
  let opened = 0

  return {
    admit() {
      if (state === 'closed') return
      const waitMs = retryAt - now()
      if (waitMs <= 0) {
        state = 'trying'
        retryAt = now() + PROBE_MS
        return
      }
      throw new SluiceError('REDIS_LIMIT', {
        detail: `The Redis provider said "${reason}". Nothing is sent to it for a while. Repeat after Retry-After.`,
        outcome: 'not_executed',
        retryAfterS: Math.ceil(waitMs / 1_000),
      })
    },
    refused(text) {
      // Those that were on the way when it opened are refused as well, and say nothing new.
      if (state === 'open') return
      if (state === 'closed') opened++
      state = 'open'
      reason = text
      pauseMs = Math.min(pauseMs === 0 ? FIRST_PAUSE_MS : pauseMs * 2, LONGEST_PAUSE_MS)
      retryAt = now() + pauseMs
    },
    answered() {
      if (state !== 'trying') return
      state = 'closed'
      reason = null
      pauseMs = 0
    },
    stats: () => ({
      open: state !== 'closed',
      reason,
      retryInMs: state === 'closed' ? 0 : Math.max(0, Math.round(retryAt - now())),
      opened,
    }),
  }
}
