/**
 * Delivers the jobs of a queue to the endpoint of its subscription. It waits for jobs in the dispatcher, as every worker does,
 * and holds no connection to Redis.
 *
 *   intake (takes jobs) → ongoing delivery → verdict → batcher (settles, and takes more in the same command)
 *   stopping: takes nothing more; deliveries that do not end within the grace period are given back
 */
import type { Logger } from 'pino'
import type { Dispatcher } from '../../dispatch/dispatcher.ts'
import type { ConcurrencyLimit, LeasedJob, TakeRequest } from '../../dispatch/leased-job.ts'
import type { SluiceError } from '../../errors.ts'
import type { DeliveryResult, WebhookClient } from '../endpoints/webhook-client.ts'
import type { Subscription, Unsealed } from '../subscriptions/subscription.ts'
import { createDeliveryIntake } from './delivery-intake.ts'
import { createDeliveryRecord, type DeliveryRecordDeps, type DeliveryRecordStats } from './delivery-record.ts'
import { buildDeliveryRequest } from './delivery-request.ts'
import { type EndedDelivery, toSettlement } from './delivery-settlement.ts'
import type { DeliverySlots } from './delivery-slots.ts'
import { BATCH_MAX, deliveryCapacity, replacementFor } from './delivery-state.ts'
import { createEndpointBreaker, type EndpointStats } from './endpoint-breaker.ts'
import { createOngoingDeliveries } from './ongoing-deliveries.ts'
import { createSettlementBatcher } from './settlement-batcher.ts'
import { createSlotReservations } from './slot-reservations.ts'
import { createTakeError } from './take-error.ts'
import type { Judge } from './verdict.ts'

export interface DeliveryWorker {
  readonly subscription: Subscription
  stats(): DeliveryWorkerStats
  /** Why no jobs can be taken from the queue, for people; `undefined`: they can. */
  takeError(): string | undefined
  /** Takes nothing more. Resolves when every delivery is settled, or was given back after `graceMs`. */
  stop(graceMs: number): Promise<void>
}

export interface DeliveryWorkerStats extends EndpointStats, DeliveryRecordStats {
  /** Leased jobs: their delivery is in flight, or has ended and is not settled yet. */
  inFlight: number
}

export interface DeliveryWorkerDeps extends DeliveryRecordDeps {
  dispatcher: Pick<Dispatcher, 'take' | 'settleAndTake' | 'giveBack' | 'notify'>
  webhookClient: Pick<WebhookClient, 'send'>
  slots: DeliverySlots
  /** What an endpoint's response means for the job. */
  judge: Judge
  /** A job was taken and is leased until `untilMs`, ms since 1970. */
  onLeased(queue: string, untilMs: number): void
  /** A job may have changed. */
  onWrite(queue: string, key: string): void
  /** The subscription has another revision in Redis. */
  onChanged(queue: string): void
  log: Logger
}

/** A lease outlives the delivery's deadline by this much, to settle the job even if Redis is away for a moment. */
const LEASE_MARGIN_MS = 30_000

export function createDeliveryWorker(
  subscription: Subscription,
  unsealed: Unsealed,
  concurrencyLimit: ConcurrencyLimit,
  deps: DeliveryWorkerDeps,
): DeliveryWorker {
  const { dispatcher, onLeased, onWrite, log, clock } = deps
  const { queue, concurrency, timeoutMs, keyId = '' } = subscription
  const leaseMs = timeoutMs + LEASE_MARGIN_MS
  const breaker = createEndpointBreaker()
  const takeError = createTakeError(queue, deps)
  const record = createDeliveryRecord(subscription, breaker, deps)
  const onFree = () => (intake.isTaking() ? dispatcher.notify(queue) : intake.fill())
  const slots = deps.slots.join({ keyId, queue }, onFree)
  const reservations = createSlotReservations(slots, capacity)
  const ongoing = createOngoingDeliveries({ send: createSend(subscription, unsealed, deps), onEnd })
  const batcher = createSettlementBatcher({
    settle,
    isLeased: ({ lease }) => lease.takenAtMs + leaseMs > clock.nowMs(),
    onBatchEnd: reservations.returnUnused,
    onAdvance() {
      if (inFlight() === 0) onIdle()
      intake.fill()
    },
  })
  const request: TakeRequest = {
    queue,
    max: BATCH_MAX,
    leaseMs,
    worker: 'webhook',
    concurrencyLimit,
    capacity: reservations.waiting,
  }
  const intake = createDeliveryIntake({
    take: (signal) => takeError.watch(dispatcher.take(request, Number.POSITIVE_INFINITY, signal)),
    hasCapacity: () => capacity(0) > 0,
    pauseMs: breaker.pauseMs,
    onTaken(taken) {
      begin(taken.jobs)
      if (taken.isLimitRevised) deps.onChanged(queue)
    },
  })
  let isStopping = false
  let onIdle = () => {}

  const inFlight = () => ongoing.count() + batcher.count()

  /** `leaving`: jobs in flight that are about to be settled. A take in progress has asked for all the capacity already. */
  function capacity(leaving: number): number {
    if (isStopping || (leaving > 0 && intake.isTaking())) return 0
    const remaining = inFlight() - leaving
    return deliveryCapacity(concurrency, remaining, breaker.capacity(remaining))
  }

  function begin(jobs: LeasedJob[]): void {
    if (isStopping) dispatcher.giveBack(request, jobs)
    else
      for (const job of jobs) {
        onLeased(queue, job.takenAtMs + leaseMs)
        ongoing.begin(job)
      }
  }

  function onEnd(job: LeasedJob, result: DeliveryResult): void {
    slots.give(1)
    const verdict = deps.judge(result, clock.nowMs())
    record.add(result, verdict)
    // A pending take would bring more jobs than the endpoint breaker allows now.
    if (breaker.capacity(ongoing.count()) < BATCH_MAX) intake.interrupt()
    batcher.add(toSettlement(job, result, verdict, clock.nowMs()))
  }

  async function settle(batch: EndedDelivery[]): Promise<EndedDelivery[]> {
    const next = { ...request, capacity: reservations.withBatch(batch.length) }
    const { refused, taken } = await dispatcher.settleAndTake(queue, batch, next)
    for (const { lease } of batch) onWrite(queue, lease.key)
    begin((await taken).jobs)
    return replaceRefused(batch, refused, log)
  }

  async function stop(graceMs: number): Promise<void> {
    isStopping = true
    intake.stop()
    slots.leave()
    if (inFlight() === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, graceMs)
      onIdle = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    dispatcher.giveBack(request, ongoing.abandon())
  }

  // After a start, every subscription joins the slots before the first takes any.
  queueMicrotask(intake.fill)
  const stats = () => ({ inFlight: inFlight(), ...record.stats(), ...breaker.stats() })
  return { subscription, stats, takeError: takeError.text, stop }
}

/** What to settle instead of the deliveries that were refused. */
function replaceRefused(
  batch: EndedDelivery[],
  refused: (SluiceError | undefined)[],
  log: Logger,
): EndedDelivery[] {
  return batch.flatMap((delivery, index) => {
    const error = refused[index]
    if (!error) return []
    const { queue, key } = delivery.lease
    log.warn({ queue, job: key, reason: error.message }, 'Delivery not settled')
    return replacementFor(delivery, error) ?? []
  })
}

const NO_DATA = Buffer.alloc(0)

/** Sends one job. A delivery that cannot be sent is postponed. */
function createSend(
  subscription: Subscription,
  unsealed: Unsealed,
  { webhookClient, log, clock }: Pick<DeliveryWorkerDeps, 'webhookClient' | 'log' | 'clock'>,
): (job: LeasedJob) => Promise<DeliveryResult> {
  const { queue } = subscription
  return async (job) => {
    try {
      const request = buildDeliveryRequest(job, subscription, unsealed, clock.nowMs())
      // The request has a copy. The data may be a view of a reply of Redis, which would stay in memory until the job is settled.
      job.data = NO_DATA
      return await webhookClient.send(request)
    } catch (error) {
      log.error({ queue, job: job.key, reason: (error as Error).message }, 'Delivery could not be sent')
      return { status: undefined, reason: 'the delivery could not be sent', isUnsent: true, ms: 0 }
    }
  }
}
