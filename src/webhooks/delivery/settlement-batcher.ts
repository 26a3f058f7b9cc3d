/**
 * Settles ended deliveries in batches: those that end in the same turn of the event loop share a command. A few commands may
 * be in flight at once, so that Redis works while further responses arrive.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { EndedDelivery } from './delivery-settlement.ts'
import { BATCH_MAX } from './delivery-state.ts'

export interface SettlementBatcher {
  add(delivery: EndedDelivery): void
  /** Deliveries that have ended and are not settled yet. */
  count(): number
}

export interface SettlementBatcherDeps {
  /** Settles a batch with one command. Resolves with the deliveries to settle again; rejects if the command failed. */
  settle(batch: EndedDelivery[]): Promise<EndedDelivery[]>
  /** Whether the job of a delivery is still leased, so that another attempt to settle it makes sense. */
  isLeased(delivery: EndedDelivery): boolean
  /** A batch has ended; the next one is not sent yet. */
  onBatchEnd(): void
  /** A batch has ended, and the next one, if any, is sent. */
  onAdvance(): void
  /** Delay before a failed batch is sent again. */
  retryMs?: number
}

const COMMANDS_MAX = 3
const RETRY_MS = 500

export function createSettlementBatcher(deps: SettlementBatcherDeps): SettlementBatcher {
  const { settle, isLeased, onBatchEnd, onAdvance, retryMs = RETRY_MS } = deps
  const ended: EndedDelivery[] = []
  let settling = 0
  let commands = 0
  let isScheduled = false

  async function settleNext(): Promise<void> {
    if (commands >= COMMANDS_MAX || ended.length === 0) return
    const batch = ended.splice(0, BATCH_MAX)
    commands++
    settling += batch.length
    const again = await settle(batch).catch(async () => {
      await sleep(retryMs)
      return batch.filter(isLeased)
    })
    commands--
    settling -= batch.length
    ended.push(...again)
    onBatchEnd()
    void settleNext()
    onAdvance()
  }

  return {
    add(delivery) {
      ended.push(delivery)
      if (isScheduled) return
      isScheduled = true
      setImmediate(() => {
        isScheduled = false
        void settleNext()
      })
    },
    count: () => ended.length + settling,
  }
}
