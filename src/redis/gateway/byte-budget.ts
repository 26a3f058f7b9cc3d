/**
 * Bounds the bytes that large reads hold in memory at once. Each reserves the most that it may read before it sends a
 * command, and keeps it until its response is assembled; others wait, first in first out. A holder must not wait for
 * another reservation.
 */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'

export interface ByteBudget {
  /**
   * Runs `use` while it holds `bytes`, or all bytes if that is less. Rejects with OVERLOADED when too many wait, and as
   * `use` does.
   */
  hold<T>(bytes: number, use: () => Promise<T>): Promise<T>
  stats(): ByteBudgetStats
}

export interface ByteBudgetStats {
  maxBytes: number
  bytesInUse: number
  waiting: number
  maxWaiting: number
  /** Reads refused because `maxWaiting` others were waiting. */
  refused: number
}

interface Reservation {
  bytes: number
  grant(): void
}

export function createByteBudget(maxBytes: number, maxWaiting: number): ByteBudget {
  /** A Set keeps the order of arrival. */
  const queue = new Set<Reservation>()
  let bytesInUse = 0
  let refused = 0

  function take(bytes: number): Promise<void> | undefined {
    if (queue.size === 0 && bytesInUse + bytes <= maxBytes) {
      bytesInUse += bytes
      return undefined
    }
    if (queue.size >= maxWaiting) {
      refused++
      throw new SluiceError('OVERLOADED', {
        detail: `Reads of ${maxBytes} bytes are in flight and ${maxWaiting} more are waiting. ${REPEAT_LATER}`,
        retryAfterS: 1,
      })
    }
    return new Promise((resolve) => queue.add({ bytes, grant: resolve }))
  }

  function release(bytes: number): void {
    bytesInUse -= bytes
    for (const next of queue) {
      if (bytesInUse + next.bytes > maxBytes) return
      queue.delete(next)
      bytesInUse += next.bytes
      next.grant()
    }
  }

  return {
    async hold(wanted, use) {
      const bytes = Math.min(wanted, maxBytes)
      await take(bytes)
      try {
        return await use()
      } finally {
        release(bytes)
      }
    },
    stats: () => ({ maxBytes, bytesInUse, waiting: queue.size, maxWaiting, refused }),
  }
}
