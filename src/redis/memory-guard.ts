/**
 * Takes no more jobs from 80 % of maxmemory on (REDIS_MEMORY_WATERMARK): in a full Redis the workers' own scripts fail, so
 * that nothing could drain it. Redis is looked at while jobs come, never for its own sake.
 */
import { SluiceError } from '../errors.ts'
import type { Gateway, Operation } from './gateway.ts'

export interface MemoryGuard {
  /** Throws REDIS_FULL while Redis is fuller than that. Asks nothing itself: what it knows may be a second old. */
  admit(): void
}

/** Half way to the watermark nothing is near. */
const LOOK_EVERY_MS = 1_000
const LOOK_OFTEN_MS = 100
const NEAR = 0.8

const LOOK: Operation = { label: 'memoryInfo', priority: 'settle', isWrite: false, commands: 1 }

export function createMemoryGuard(watermarkPercent: number, gateway: Gateway): MemoryGuard {
  const watermark = watermarkPercent / 100
  let used = 0
  let lookedAt = Number.NEGATIVE_INFINITY

  async function look(): Promise<void> {
    const text = await gateway.onAdmin(LOOK, (client) => client.info('memory'))
    const field = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(text)?.[1] ?? 0)
    const max = field('maxmemory')
    used = max === 0 ? 0 : field('used_memory') / max
  }

  return {
    admit() {
      if (watermarkPercent === 0) return
      const now = performance.now()
      if (now - lookedAt >= (used >= watermark * NEAR ? LOOK_OFTEN_MS : LOOK_EVERY_MS)) {
        lookedAt = now
        // What cannot be asked now is asked with a later job; the job itself will hear what is wrong.
        look().catch(() => {})
      }
      if (used < watermark) return
      throw new SluiceError('REDIS_FULL', {
        detail:
          `Redis uses ${Math.floor(used * 100)} % of its memory, and takes jobs below ${watermarkPercent} % only, so that ` +
          'workers can drain it. Repeat after Retry-After.',
        outcome: 'not_executed',
        retryAfterS: 5,
      })
    },
  }
}
