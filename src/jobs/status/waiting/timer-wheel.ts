/**
 * Deadlines of any length, tens of thousands of them, on one timer, accurate to one tick. The timer runs only between
 * `start` and `stop`, so that an idle process does not wake up. (redis/gateway/deadlines.ts is exact, but its deadlines
 * all have the same length.)
 */
export interface TimerWheel<Item> {
  start(): void
  stop(): void
  /** The first tick after `ms` from now; pass it to `add` and `remove`. */
  dueIn(ms: number): number
  add(item: Item, dueTick: number): void
  remove(item: Item, dueTick: number): void
}

export interface TimerWheelOptions<Item> {
  tickMs: number
  /** The item is due. The wheel keeps it until `remove`. */
  onDue(item: Item): void
  /** Called for each tick, late ones included, after the items that were due in it. */
  onTick(tick: number): void
}

export function createTimerWheel<Item>({ tickMs, onDue, onTick }: TimerWheelOptions<Item>): TimerWheel<Item> {
  const itemsByTick = new Map<number, Set<Item>>()
  let nextTick = 0
  let timer: NodeJS.Timeout | undefined

  const tickAt = (ms: number) => Math.floor(ms / tickMs)

  function advance(): void {
    for (const now = tickAt(performance.now()); nextTick < now; nextTick++) {
      for (const item of itemsByTick.get(nextTick) ?? []) onDue(item)
      onTick(nextTick)
    }
  }

  return {
    start() {
      if (timer !== undefined) return
      nextTick = tickAt(performance.now())
      timer = setInterval(advance, tickMs)
    },
    stop() {
      clearInterval(timer)
      timer = undefined
    },
    dueIn: (ms) => tickAt(performance.now() + ms) + 1,
    add(item, dueTick) {
      itemsByTick.set(dueTick, (itemsByTick.get(dueTick) ?? new Set()).add(item))
    },
    remove(item, dueTick) {
      const sameTick = itemsByTick.get(dueTick)
      if (sameTick?.delete(item) && sameTick.size === 0) itemsByTick.delete(dueTick)
    },
  }
}
