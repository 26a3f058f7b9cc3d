/**
 * Limits how many deliveries this process has in flight. Slots are divided twice by the same rule: among the API keys that put
 * the subscriptions, and what a key may use among its queues. By that rule half is common, for the first that asks; of the
 * other half each may use an even share, at least one slot. A slot is never taken back before its delivery ends, so shares
 * are what endpoints that never respond cannot take from others.
 */
export interface DeliverySlots {
  /**
   * `onFree` is called once after a `take` that returned fewer slots than wanted, as soon as slots are free
   * again.
   */
  join(member: SlotMember, onFree: () => void): SlotHolder
  /** At most the total, and one for each key but one. */
  inUse(): number
}

export interface SlotMember {
  /** Id of the API key that put the subscription; '' without a key. */
  keyId: string
  queue: string
}

export interface SlotHolder {
  /** Takes at most `wanted` slots; returns how many it got. */
  take(wanted: number): number
  /** Deliveries have ended. */
  give(count: number): void
  /** Gives back slots of a take that found fewer jobs. More slots would not have helped it, so it is not notified. */
  giveUnused(count: number): void
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

interface KeyUsage {
  inUse: number
  queues: Map<string, QueueUsage>
  /** The queues with slots in use. */
  busy: Set<QueueUsage>
  /** The callbacks of holders that got fewer slots than they wanted. */
  starved: Map<SlotHolder, () => void>
}

export function createDeliverySlots(total: number): DeliverySlots {
  const keys = new Map<string, KeyUsage>()
  const busy = new Set<KeyUsage>()
  let inUse = 0

  /**
   * A key without a delivery in flight may always start one, even above the total: all slots may be in use when its first
   * subscription comes, or there may be more keys than slots.
   */
  function freeForKey(key: KeyUsage, shares = divide(total, keys.size, busy)): number {
    const atLeast = key.inUse === 0 ? 1 : 0
    const free = total - inUse
    return Math.max(atLeast, Math.min(free, allowance(shares, key)))
  }

  function freeForQueue(key: KeyUsage, queue: QueueUsage): number {
    const free = freeForKey(key)
    // Every holder that waits asks again when a slot is free, and most find none.
    if (free <= 0) return 0
    return Math.min(free, allowance(divide(key.inUse + free, key.queues.size, key.busy), queue))
  }

  function count(key: KeyUsage, queue: QueueUsage, change: number): void {
    inUse += change
    key.inUse += change
    queue.inUse += change
    noteBusy(busy, key)
    noteBusy(key.busy, queue)
  }

  /** Holders whose key still may not use more are left alone. */
  function notifyStarved(): void {
    const shares = divide(total, keys.size, busy)
    for (const key of keys.values()) {
      if (key.starved.size === 0 || freeForKey(key, shares) <= 0) continue
      const callbacks = [...key.starved.values()]
      key.starved.clear()
      for (const notify of callbacks) notify()
    }
  }

  function join({ keyId, queue }: SlotMember, onFree: () => void): SlotHolder {
    const key = keys.get(keyId) ?? { inUse: 0, queues: new Map(), busy: new Set(), starved: new Map() }
    keys.set(keyId, key)
    const own = key.queues.get(queue) ?? { inUse: 0, holders: 0 }
    key.queues.set(queue, own)
    own.holders++
    let hasLeft = false

    function removeIfUnused(): void {
      if (own.inUse > 0 || own.holders > 0) return
      key.queues.delete(queue)
      if (key.queues.size === 0) keys.delete(keyId)
    }

    function give(given: number): void {
      if (given === 0) return
      count(key, own, -given)
      removeIfUnused()
      notifyStarved()
    }

    const holder: SlotHolder = {
      take(wanted) {
        // Its queue and its key may be gone.
        if (hasLeft) return 0
        const got = Math.min(Math.max(0, wanted), freeForQueue(key, own))
        if (got > 0) count(key, own, got)
        if (got < wanted) key.starved.set(holder, onFree)
        return got
      },
      give,
      giveUnused(unused) {
        if (unused > 0) key.starved.delete(holder)
        give(unused)
      },
      leave() {
        hasLeft = true
        own.holders--
        key.starved.delete(holder)
        removeIfUnused()
      },
    }
    return holder
  }

  return { join, inUse: () => inUse }
}

interface Usage {
  inUse: number
}

function noteBusy<T extends Usage>(busy: Set<T>, usage: T): void {
  if (usage.inUse > 0) busy.add(usage)
  else busy.delete(usage)
}

interface Shares {
  /** How many slots each may use whatever the others use. */
  share: number
  /** What is left of the common half; negative after more have joined, whose share is smaller than what some use. */
  commonFree: number
}

/** Divides `total` slots among `count`. `busy`: those with slots in use. */
function divide(total: number, count: number, busy: Iterable<Usage>): Shares {
  const half = Math.floor(total / 2)
  const share = Math.max(1, Math.floor(half / count))
  // What the shares leave of their half is common as well.
  let commonFree = total - Math.min(half, share * count)
  for (const { inUse } of busy) commonFree -= Math.max(0, inUse - share)
  return { share, commonFree }
}

/** How many more slots one of them may use. */
function allowance({ share, commonFree }: Shares, { inUse }: Usage): number {
  return Math.max(0, share - inUse) + Math.max(0, commonFree)
}
