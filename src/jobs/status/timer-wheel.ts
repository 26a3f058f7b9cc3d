/**
 * Deadlines of any length, by the ten thousand, on one timer, exact to one tick. It runs from `start` to `stop`, so that
 * nothing wakes a process in which nobody waits. (redis/deadlines.ts is exact, for deadlines of one length.)
 */
export interface TimerWheel<Item> {
  start(): void
  stop(): void
  /** The tick by which this time will have passed: what `add` and `remove` want. */
  dueIn(ms: number): number
  add(item: Item, due: number): void
  remove(item: Item, due: number): void
}

export interface TimerWheelOptions<Item> {
  tickMs: number
  /** Its time is up. It is not removed by that. */
  onDue(item: Item): void
  /** Once each tick, also of ticks that came late, after those that were due in it. */
  onTick(tick: number): void
}

export function createTimerWheel<Item>({ tickMs, onDue, onTick }: TimerWheelOptions<Item>): TimerWheel<Item> {
  const dueBy = new Map<number, Set<Item>>()
  let tick = 0
  let timer: NodeJS.Timeout | undefined

  const tickAt = (ms: number) => Math.floor(ms / tickMs)

  function run(): void {
    for (const now = tickAt(performance.now()); tick < now; tick++) {
      for (const item of dueBy.get(tick) ?? []) onDue(item)
      onTick(tick)
    }
  }

  return {
    start() {
      if (timer !== undefined) return
      tick = tickAt(performance.now())
      timer = setInterval(run, tickMs)
    },
    stop() {
      clearInterval(timer)
      timer = undefined
    },
    dueIn: (ms) => tickAt(performance.now() + ms) + 1,
    add(item, due) {
      dueBy.set(due, (dueBy.get(due) ?? new Set()).add(item))
    },
    remove(item, due) {
      const sameTick = dueBy.get(due)
      if (sameTick?.delete(item) && sameTick.size === 0) dueBy.delete(due)
    },
  }
}
