/**
 * Takes no more jobs from 80 % of maxmemory on (REDIS_MEMORY_WATERMARK): in a full Redis the workers' own scripts fail, so
 * that nothing could drain it. Redis is looked at while jobs come, never for its own sake.
 */
import { SluiceError } from '../../errors.ts'
import type { RedisGateway, RedisOperation } from './redis-gateway.ts'

export interface MemoryGuard {
  /**
   * Throws REDIS_FULL while Redis is fuller than that. `bytes`: of the job's data. Asks nothing itself: what it knows may be a
   * second old, and what has been let in since is reckoned with.
   */
  admit(bytes: number): void
}

/** Below four fifths of the watermark a second's jobs do not reach it. */
const LOOK_EVERY_MS = 1_000
const LOOK_OFTEN_MS = 100
const NEAR = 0.8
/** What Redis needs for a job beside its data: its hash, its places, its event, its record. */
const JOB_BYTES = 1_024

const LOOK: RedisOperation = { label: 'memoryInfo', priority: 'settle', isWrite: false, commands: 1 }

export function createMemoryGuard(watermarkPercent: number, gateway: RedisGateway): MemoryGuard {
  let maxBytes = Number.POSITIVE_INFINITY
  let usedBytes = 0
  /** Let in since the last look was begun, and before it, which it may not have seen. */
  let sinceBytes = 0
  let beforeBytes = 0
  let lookedAt = Number.NEGATIVE_INFINITY
  let isLooking = false

  async function look(): Promise<void> {
    beforeBytes += sinceBytes
    sinceBytes = 0
    const text = await gateway.onAdmin(LOOK, (client) => client.info('memory'))
    const field = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(text)?.[1] ?? 0)
    maxBytes = field('maxmemory') || Number.POSITIVE_INFINITY
    usedBytes = field('used_memory')
    beforeBytes = 0
  }

  return {
    admit(bytes) {
      if (watermarkPercent === 0) return
      const now = performance.now()
      const limitBytes = (maxBytes * watermarkPercent) / 100
      const filled = usedBytes + beforeBytes + sinceBytes
      if (!isLooking && now - lookedAt >= (filled >= limitBytes * NEAR ? LOOK_OFTEN_MS : LOOK_EVERY_MS)) {
        lookedAt = now
        isLooking = true
        // What cannot be asked now is asked with a later job; the job itself will hear what is wrong.
        look()
          .catch(() => {})
          .finally(() => {
            isLooking = false
          })
      }
      if (filled >= limitBytes) {
        throw new SluiceError('REDIS_FULL', {
          detail:
            `Redis uses ${Math.floor((filled / maxBytes) * 100)} % of its memory, with the jobs that are on their way, and takes ` +
            `jobs below ${watermarkPercent} % only, so that workers can drain it. Repeat after Retry-After.`,
          outcome: 'not_executed',
          retryAfterS: 5,
        })
      }
      sinceBytes += bytes + JOB_BYTES
    },
  }
}
