/**
 * Checks jobs that requests wait for: one read at a time for each group, repeated if something happened meanwhile.
 *
 *   idle ─ check → reading ─ check → reading, to be repeated
 *                     └ result → idle, or reading again
 */
import type { Found } from '../cache-entry.ts'
import type { StatusCache } from '../status-cache.ts'
import type { WaitGroup } from './wait-groups.ts'

export interface WaitChecks<Waiter> {
  /** Starts a check, or makes the one under way repeat. Does nothing for a group without waiters. */
  check(group: WaitGroup<Waiter>): void
  /** Reads the job, from memory where no event has removed it. */
  read(group: WaitGroup<Waiter>): Promise<Found>
}

export interface WaitChecksOptions<Waiter> {
  onRead(group: WaitGroup<Waiter>, found: Found): void
  /** The queue could not be followed, or the job could not be read. */
  onError(group: WaitGroup<Waiter>, error: unknown): void
}

export function createWaitChecks<Waiter>(
  statusCache: Pick<StatusCache, 'peek' | 'fetch'>,
  { onRead, onError }: WaitChecksOptions<Waiter>,
): WaitChecks<Waiter> {
  function check(group: WaitGroup<Waiter>): void {
    if (group.waiters.size === 0) return
    group.checkAgain = true
    group.checking ??= run(group).finally(() => {
      group.checking = undefined
      // A request may have joined the group after the last read.
      if (group.checkAgain) check(group)
    })
  }

  async function run(group: WaitGroup<Waiter>): Promise<void> {
    try {
      await group.followed.started
      while (group.checkAgain && group.waiters.size > 0) {
        group.checkAgain = false
        onRead(group, await read(group))
      }
    } catch (error) {
      group.checkAgain = false
      onError(group, error)
    }
  }

  async function read({ ref, include }: WaitGroup<Waiter>): Promise<Found> {
    return (
      statusCache.peek(`${ref.queue}:${ref.key}`, include, performance.now()) ??
      statusCache.fetch(ref, include)
    )
  }

  return { check, read }
}
