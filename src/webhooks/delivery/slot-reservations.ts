/**
 * Reserves delivery slots for the takes of one worker. The unused slots of a take with a batch are returned only when the
 * batch has ended: freed slots start another take, which must not count the batch's jobs as capacity a second time.
 */
import type { TakeCapacity } from '../../dispatch/leased-job.ts'
import type { SlotHolder } from './delivery-slots.ts'

export interface SlotReservations {
  /** For a take that waits. */
  waiting: TakeCapacity
  /** For a take with a command that settles `batchSize` jobs. */
  withBatch(batchSize: number): TakeCapacity
  /** Returns the slots that takes with a batch have not used. */
  returnUnused(): void
}

/** `capacity`: how many more jobs the worker may take once `leaving` jobs are settled. */
export function createSlotReservations(
  slots: Pick<SlotHolder, 'take' | 'giveUnused'>,
  capacity: (leaving: number) => number,
): SlotReservations {
  let unused = 0

  return {
    waiting: { take: () => slots.take(capacity(0)), give: (count) => slots.giveUnused(count) },
    withBatch: (batchSize) => ({
      take: () => slots.take(capacity(batchSize)),
      give(count) {
        unused += count
      },
    }),
    returnUnused() {
      const count = unused
      unused = 0
      slots.giveUnused(count)
    },
  }
}
