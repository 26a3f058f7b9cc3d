/**
 * Refuses new jobs once Redis has used REDIS_MEMORY_WATERMARK (80 %) of maxmemory. In a full Redis the
 * workers' own scripts fail, so the queues could no longer drain. The memory is only read while jobs are
 * being enqueued.
 */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import type { RedisGateway, RedisOperation } from './redis-gateway.ts'

export interface MemoryGuard {
  /**
   * Throws REDIS_FULL above the watermark. `bytes`: size of the job's data. Sends no command and waits for
   * none: the last reading may be a second old, and the jobs admitted since then are added to it.
   */
  admit(bytes: number): void
}

const REFRESH_MS = 1_000
/** Replaces REFRESH_MS near the watermark. */
const REFRESH_NEAR_MS = 100
/** Share of the watermark below which the jobs of one second do not reach it. */
const NEAR = 0.8
/** Memory of a job in Redis besides its data: its hash, list entries, event and idempotency record. */
const JOB_OVERHEAD_BYTES = 1_024

const READ_MEMORY: RedisOperation = { label: 'memoryInfo', priority: 'settle', isWrite: false, commands: 1 }

export function createMemoryGuard(watermarkPercent: number, gateway: RedisGateway): MemoryGuard {
  let maxBytes = Number.POSITIVE_INFINITY
  let usedBytes = 0
  /** Admitted since the last reading began. */
  let newBytes = 0
  /** Admitted before the reading in progress, which may not include them yet. */
  let unconfirmedBytes = 0
  let refreshedAt = Number.NEGATIVE_INFINITY
  let isRefreshing = false

  async function readMemory(): Promise<void> {
    unconfirmedBytes += newBytes
    newBytes = 0
    const text = await gateway.onAdmin(READ_MEMORY, (client) => client.info('memory'))
    const field = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(text)?.[1] ?? 0)
    maxBytes = field('maxmemory') || Number.POSITIVE_INFINITY
    usedBytes = field('used_memory')
    unconfirmedBytes = 0
  }

  function refresh(): void {
    isRefreshing = true
    // A failed reading is repeated with a later job. The job itself fails with the reason if Redis is down.
    readMemory()
      .catch(() => {})
      .finally(() => {
        isRefreshing = false
      })
  }

  function admit(bytes: number): void {
    if (watermarkPercent === 0) return
    const now = performance.now()
    const limitBytes = (maxBytes * watermarkPercent) / 100
    const filledBytes = usedBytes + unconfirmedBytes + newBytes
    const refreshMs = filledBytes >= limitBytes * NEAR ? REFRESH_NEAR_MS : REFRESH_MS
    if (!isRefreshing && now - refreshedAt >= refreshMs) {
      refreshedAt = now
      refresh()
    }
    if (filledBytes >= limitBytes) throw full(Math.floor((filledBytes / maxBytes) * 100), watermarkPercent)
    newBytes += bytes + JOB_OVERHEAD_BYTES
  }

  return { admit }
}

function full(usedPercent: number, watermarkPercent: number): SluiceError {
  return new SluiceError('REDIS_FULL', {
    detail:
      `Redis uses ${usedPercent} % of its memory, including jobs in flight, and accepts new jobs only below ` +
      `${watermarkPercent} %, so that workers can drain the queues. ${REPEAT_LATER}`,
    outcome: 'not_executed',
    retryAfterS: 5,
  })
}
