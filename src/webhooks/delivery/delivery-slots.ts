/**
 * Limits how many deliveries this process has in flight. Half of the slots are common: they go to the first queue that
 * asks. Of the other half each queue may use an even share, at least one slot, so that an endpoint that never responds
 * cannot starve the others.
 */
export interface DeliverySlots {
  /**
   * `onFree` is called once after a `take` that returned fewer slots than wanted, as soon as slots are free
   * again.
   */
  join(queue: string, onFree: () => void): SlotHolder
  inUse(): number
}

export interface SlotHolder {
  /** Takes at most `wanted` slots; returns how many it got. */
  take(wanted: number): number
  give(count: number): void
  /**
   * Takes no more slots. Those still in use are given back later; until then the next holder of the queue has
   * fewer.
   */
  leave(): void
}

interface QueueUsage {
  inUse: number
  holders: number
}

export function createDeliverySlots(total: number): DeliverySlots {
  const queues = new Map<string, QueueUsage>()
  const commonSlots = total - Math.floor(total / 2)
  /** The queues with slots in use. */
  const busy = new Set<QueueUsage>()
  /** The callbacks of holders that got fewer slots than they wanted. */
  const starved = new Map<SlotHolder, () => void>()
  let inUse = 0

  function freeFor(own: QueueUsage): number {
    const free = total - inUse
    // Every holder that waits asks again when a slot is free, and most find none.
    if (free === 0) return 0
    const share = Math.max(1, Math.floor(total / 2 / queues.size))
    let commonFree = commonSlots
    for (const { inUse } of busy) commonFree -= Math.max(0, inUse - share)
    // After more queues have joined, the share is smaller than what some of them use.
    return Math.min(free, Math.max(0, share - own.inUse) + Math.max(0, commonFree))
  }

  function removeIfUnused(queue: string, usage: QueueUsage): void {
    if (usage.inUse === 0 && usage.holders === 0) queues.delete(queue)
  }

  function join(queue: string, onFree: () => void): SlotHolder {
    const own = queues.get(queue) ?? { inUse: 0, holders: 0 }
    queues.set(queue, own)
    own.holders++
    const holder: SlotHolder = {
      take(wanted) {
        const got = Math.min(Math.max(0, wanted), freeFor(own))
        inUse += got
        own.inUse += got
        if (own.inUse > 0) busy.add(own)
        if (got < wanted) starved.set(holder, onFree)
        return got
      },
      give(count) {
        if (count === 0) return
        inUse -= count
        own.inUse -= count
        if (own.inUse === 0) busy.delete(own)
        removeIfUnused(queue, own)
        const callbacks = [...starved.values()]
        starved.clear()
        for (const notify of callbacks) notify()
      },
      leave() {
        own.holders--
        starved.delete(holder)
        removeIfUnused(queue, own)
      },
    }
    return holder
  }

  return { join, inUse: () => inUse }
}
