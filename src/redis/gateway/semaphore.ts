/**
 * Bounds how many round trips to Redis are in flight, and orders the operations that wait: by priority, first
 * in first out within one. The number that may wait is bounded too. When it is reached, a new operation
 * displaces the last one of the lowest priority below its own, or is refused.
 */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'

/** Highest first. Settling a lease frees work; no job depends on a listing. */
export const priorities = ['settle', 'enqueue', 'read', 'list'] as const
export type Priority = (typeof priorities)[number]

export interface Semaphore {
  /** Takes a permit if one is free. */
  tryTake(): boolean
  /**
   * Waits for a permit. Rejects with the signal's reason when it aborts, and with OVERLOADED when refused or
   * displaced.
   */
  take(priority: Priority, signal?: AbortSignal): Promise<void>
  /** Returns a permit; call it exactly once for each permit taken. */
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
  grant(): void
  refuse(): void
}

/** A Set keeps the order of arrival and removes a request from its middle in constant time. */
type RequestQueues = Record<Priority, Set<PermitRequest>>

export function createSemaphore(permits: number, maxWaiting: number): Semaphore {
  const queues = createQueues()
  let inUse = 0
  let waiting = 0
  let refused = 0
  let peak = 0

  function tryTake(): boolean {
    if (inUse >= permits) return false
    inUse++
    if (inUse > peak) peak = inUse
    return true
  }

  async function take(priority: Priority, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    if (tryTake()) return
    if (waiting >= maxWaiting) {
      const displaced = lastBelow(queues, priority)
      if (!displaced) throw overloaded()
      displaced.refuse()
    }
    return wait(priority, signal)
  }

  function wait(priority: Priority, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const remove = () => {
        queues[priority].delete(request)
        waiting--
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = () => {
        remove()
        reject(signal?.reason)
      }
      const request: PermitRequest = {
        grant() {
          remove()
          resolve()
        },
        refuse() {
          remove()
          reject(overloaded())
        },
      }
      queues[priority].add(request)
      waiting++
      signal?.addEventListener('abort', onAbort)
    })
  }

  function release(): void {
    // The permit passes directly to the next request, so that no newcomer can take it first.
    const next = waiting > 0 ? firstRequest(queues) : undefined
    if (next) next.grant()
    else inUse--
  }

  function overloaded(): SluiceError {
    refused++
    return new SluiceError('OVERLOADED', {
      detail: `${permits} operations are in flight and ${maxWaiting} more are waiting. ${REPEAT_LATER}`,
      outcome: 'not_executed',
      retryAfterS: 1,
    })
  }

  function stats(): SemaphoreStats {
    return { permits, inUse, waiting, maxWaiting, waitingByPriority: queueLengths(queues), refused, peak }
  }

  return { tryTake, take, release, stats }
}

function createQueues(): RequestQueues {
  return { settle: new Set(), enqueue: new Set(), read: new Set(), list: new Set() }
}

function queueLengths({ settle, enqueue, read, list }: RequestQueues): Record<Priority, number> {
  return { settle: settle.size, enqueue: enqueue.size, read: read.size, list: list.size }
}

/** The oldest request of the highest priority. */
function firstRequest(queues: RequestQueues): PermitRequest | undefined {
  for (const priority of priorities) {
    for (const request of queues[priority]) return request
  }
  return undefined
}

/** The newest request of the lowest priority that is lower than `priority`. */
function lastBelow(queues: RequestQueues, priority: Priority): PermitRequest | undefined {
  for (const lower of priorities.slice(priorities.indexOf(priority) + 1).reverse()) {
    let last: PermitRequest | undefined
    for (const request of queues[lower]) last = request
    if (last) return last
  }
  return undefined
}
