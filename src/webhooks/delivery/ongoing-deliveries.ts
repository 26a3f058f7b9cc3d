/** The deliveries of one worker that have been sent and have no result yet. */
import type { LeasedJob } from '../../dispatch/leased-job.ts'
import type { DeliveryResult } from '../endpoints/webhook-client.ts'

export interface OngoingDeliveries {
  begin(job: LeasedJob): void
  count(): number
  /** Removes all deliveries and returns their jobs. Their results are ignored. */
  abandon(): LeasedJob[]
}

export interface OngoingDeliveriesDeps {
  /** Must not reject. */
  send(job: LeasedJob): Promise<DeliveryResult>
  /** Called when a delivery that was not abandoned has ended. */
  onEnd(job: LeasedJob, result: DeliveryResult): void
}

export function createOngoingDeliveries({ send, onEnd }: OngoingDeliveriesDeps): OngoingDeliveries {
  const jobs = new Set<LeasedJob>()

  async function deliver(job: LeasedJob): Promise<void> {
    const result = await send(job)
    if (jobs.delete(job)) onEnd(job, result)
  }

  return {
    begin(job) {
      jobs.add(job)
      void deliver(job)
    },
    count: () => jobs.size,
    abandon() {
      const abandoned = [...jobs]
      jobs.clear()
      return abandoned
    },
  }
}
