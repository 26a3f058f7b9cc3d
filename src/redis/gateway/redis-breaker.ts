/**
 * Stops sending commands to a Redis whose provider reported that its limit is reached: every further command
 * would be refused, and might be billed. After a pause a single command probes the limit; each refused probe
 * doubles the pause.
 *
 *   closed ─ refused for a limit ─→ open ─ pause over ─→ half-open (one probe) ─→ closed, or open for twice as long
 */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'

export interface RedisBreaker {
  /**
   * Throws REDIS_LIMIT while the breaker is open. The first caller after the pause is admitted as the probe.
   */
  admit(): void
  /** Redis refused a command for a limit, with this text. */
  refused(text: string): void
  /** Redis replied to a command. */
  answered(): void
  stats(): RedisBreakerStats
}

export interface RedisBreakerStats {
  open: boolean
  /** The last refusal; `null` while closed. */
  reason: string | null
  /** Time until a command may probe the limit, ms. */
  retryInMs: number
  /** How often the breaker has opened since the start. */
  opened: number
}

const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 60_000
/** After this time a probe counts as lost, and the next command is admitted. */
const PROBE_MS = 5_000

export function createRedisBreaker(now: () => number = () => performance.now()): RedisBreaker {
  let state: 'closed' | 'open' | 'half-open' = 'closed'
  let reason: string | null = null
  let pauseMs = 0
  let retryAt = 0
  let opened = 0

  return {
    admit() {
      if (state === 'closed') return
      const waitMs = retryAt - now()
      if (waitMs <= 0) {
        state = 'half-open'
        retryAt = now() + PROBE_MS
        return
      }
      throw new SluiceError('REDIS_LIMIT', {
        detail: `The Redis provider refused a command: "${reason}". Commands are paused. ${REPEAT_LATER}`,
        outcome: 'not_executed',
        retryAfterS: Math.ceil(waitMs / 1_000),
      })
    },
    refused(text) {
      // Commands that were in flight when the breaker opened are refused as well; they do not lengthen the
      // pause.
      if (state === 'open') return
      if (state === 'closed') opened++
      state = 'open'
      reason = text
      pauseMs = Math.min(pauseMs === 0 ? FIRST_PAUSE_MS : pauseMs * 2, LONGEST_PAUSE_MS)
      retryAt = now() + pauseMs
    },
    answered() {
      if (state !== 'half-open') return
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
