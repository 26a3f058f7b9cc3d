/**
 * How many round trips to Redis may be in flight, and who goes next. A permit is had at once, waited for in order of
 * priority (first in, first out within one), or refused: a queue without a bound only moves the crash elsewhere. Where it is
 * full, the last of those who matter least makes room for one who matters more.
 */
import { SluiceError } from '../../errors.ts'

/** Settling goes first, since it frees work; listings go last, since nobody's job depends on them. */
export const priorities = ['settle', 'enqueue', 'read', 'list'] as const
export type Priority = (typeof priorities)[number]

export interface Semaphore {
  /** Takes a permit if one is free. */
  tryTake(): boolean
  /** Waits for a permit; rejects when `signal` says so, and with OVERLOADED when too many wait who matter as much. */
  take(priority: Priority, signal?: AbortSignal): Promise<void>
  /** Gives a permit back. Once for each that was had. */
  release(): void
  stats(): SemaphoreStats
}

export interface SemaphoreStats {
  permits: number
  inUse: number
  waiting: number
  maxWaiting: number
  waitingByPriority: Record<Priority, number>
  refused: number
  /** Most permits in use at once since the start. */
  peak: number
}

interface PermitRequest {
  proceed(): void
  refuse(): void
}

export function createSemaphore(permits: number, maxWaiting: number): Semaphore {
  // A Set keeps the order of insertion and gives up a waiter from its middle in constant time.
  const lines = Object.fromEntries(
    priorities.map((priority) => [priority, new Set<PermitRequest>()]),
  ) as Record<Priority, Set<PermitRequest>>
  let inUse = 0
  let waiting = 0
  let refused = 0
  let peak = 0

  function wait(priority: Priority, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        lines[priority].delete(waiter)
        waiting--
        signal?.removeEventListener('abort', abandon)
      }
      const abandon = () => {
        leave()
        reject(signal?.reason)
      }
      const waiter: PermitRequest = {
        proceed() {
          leave()
          resolve()
        },
        refuse() {
          leave()
          reject(overloaded())
        },
      }
      lines[priority].add(waiter)
      waiting++
      signal?.addEventListener('abort', abandon)
    })
  }

  function overloaded(): SluiceError {
    refused++
    return new SluiceError('OVERLOADED', {
      detail: `${permits} operations are in flight and ${maxWaiting} wait behind them. Repeat after Retry-After.`,
      outcome: 'not_executed',
      retryAfterS: 1,
    })
  }

  /** The last in line of those who matter least, if they matter less than that. */
  function lastBelow(priority: Priority): PermitRequest | undefined {
    for (const lower of priorities.slice(priorities.indexOf(priority) + 1).reverse()) {
      let last: PermitRequest | undefined
      for (const waiter of lines[lower]) last = waiter
      if (last) return last
    }
    return undefined
  }

  function tryTake(): boolean {
    if (inUse >= permits) return false
    inUse++
    if (inUse > peak) peak = inUse
    return true
  }

  function next(): PermitRequest | undefined {
    for (const priority of priorities) {
      for (const waiter of lines[priority]) return waiter
    }
    return undefined
  }

  return {
    tryTake,
    async take(priority, signal) {
      signal?.throwIfAborted()
      if (tryTake()) return
      if (waiting >= maxWaiting) {
        const last = lastBelow(priority)
        if (!last) throw overloaded()
        last.refuse()
      }
      return wait(priority, signal)
    },
    release() {
      // The permit goes straight to whoever is next, so that nobody can slip in between.
      const waiter = waiting > 0 ? next() : undefined
      if (waiter) waiter.proceed()
      else inUse--
    },
    stats: () => ({
      permits,
      inUse,
      waiting,
      maxWaiting,
      waitingByPriority: Object.fromEntries(priorities.map((p) => [p, lines[p].size])) as Record<
        Priority,
        number
      >,
      refused,
      peak,
    }),
  }
}
