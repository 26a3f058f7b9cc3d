/**
 * How many deliveries this process may have on their way, and of which queue. Half of the places are shared out evenly, so
 * that one receiver that comes to no end cannot keep the others from theirs; the rest is had by whoever comes first.
 */
export interface DeliverySlots {
  /** `onFree`: called when it got fewer than it wanted, and there are some again. */
  join(queue: string, onFree: () => void): SlotHolder
  inUse(): number
}

export interface SlotHolder {
  /** At most so many; returns how many it got. */
  take(wanted: number): number
  give(count: number): void
  /** It takes no more. What it still has it gives later; until then whoever comes after it for the queue has so many fewer. */
  leave(): void
}

interface OfQueue {
  count: number
  holders: number
}

export function createDeliverySlots(total: number): DeliverySlots {
  const queues = new Map<string, OfQueue>()
  const wanting = new Map<SlotHolder, () => void>()
  let inUse = 0

  function freeFor(own: OfQueue): number {
    const share = Math.floor(total / 2 / queues.size)
    let promised = 0
    for (const other of queues.values()) if (other !== own) promised += Math.max(0, share - other.count)
    const free = total - inUse
    return Math.max(0, Math.min(free, share - own.count), free - promised)
  }

  function forget(queue: string, { count, holders }: OfQueue): void {
    if (count === 0 && holders === 0) queues.delete(queue)
  }

  return {
    join(queue, onFree) {
      const own = queues.get(queue) ?? { count: 0, holders: 0 }
      queues.set(queue, own)
      own.holders++
      const holder: SlotHolder = {
        take(wanted) {
          const got = Math.min(Math.max(0, wanted), freeFor(own))
          inUse += got
          own.count += got
          if (got < wanted) wanting.set(holder, onFree)
          return got
        },
        give(count) {
          if (count === 0) return
          inUse -= count
          own.count -= count
          forget(queue, own)
          const told = [...wanting.values()]
          wanting.clear()
          for (const tell of told) tell()
        },
        leave() {
          own.holders--
          wanting.delete(holder)
          forget(queue, own)
        },
      }
      return holder
    },
    inUse: () => inUse,
  }
}
