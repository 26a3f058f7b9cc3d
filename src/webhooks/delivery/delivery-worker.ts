/**
 * Sends the jobs of a queue to its receiver: takes as many as there is room for, sends each, and settles those that have
 * ended together, in the command that takes the next. It stands in line like every consumer, and holds no connection to Redis.
 *
 *   room → line → [jobs] → sender → verdict → settled with others, and the next taken in the same command
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Dispatcher } from '../../dispatch/dispatcher.ts'
import type { ConcurrencyLimit, LeasedJob, TakeRequest } from '../../dispatch/leased-job.ts'
import type { WorkerCommands } from '../../dispatch/worker-commands.ts'
import type { SluiceError } from '../../errors.ts'
import type { Subscription, Unsealed } from '../subscriptions/subscription.ts'
import { buildDeliveryRequest } from './delivery-request.ts'
import { type EndedDelivery, settlementOf } from './delivery-settlement.ts'
import type { DeliverySlots } from './delivery-slots.ts'
import { createEndpointBreaker, type EndpointStats } from './endpoint-breaker.ts'
import { judge, type Verdict } from './verdict.ts'
import type { DeliveryResult, WebhookClient } from './webhook-client.ts'

export interface DeliveryWorker {
  readonly subscription: Subscription
  stats(): DeliveryWorkerStats
  /** Takes no more; resolves when those that were sent are settled, or went back after `graceMs`. */
  stop(graceMs: number): Promise<void>
}

/** `retried`: later. */
export type DeliveryOutcome = 'delivered' | 'retried' | 'failed'

export interface DeliveryWorkerStats extends EndpointStats, Record<DeliveryOutcome, number> {
  inFlight: number
  lastStatus: number | null
}

export interface DeliveryWorkerDeps {
  line: Pick<Dispatcher, 'take' | 'hasNoWaiters' | 'giveBack' | 'notify'>
  work: Pick<WorkerCommands, 'settle'>
  sender: Pick<WebhookClient, 'send'>
  places: DeliverySlots
  onHeld(queue: string, untilMs: number): void
  onWrite(queue: string, key: string): void
  /** A delivery has ended. */
  onEnded(how: DeliveryOutcome): void
  /** The receiver wants no more (410), or has failed for too long. */
  onGone(subscription: Subscription, reason: string): void
  /** Redis has another revision of the subscription. */
  onChanged(queue: string): void
  /** A receiver that has failed for so long is paused, ms; 0: never. */
  pauseAfterMs: number
  log: Logger
}

/** A job is held for its deadline and this much more, for settling it while Redis is away for a moment. */
const MARGIN_MS = 30_000
const SETTLE_AGAIN_MS = 500
const TAKE_AGAIN_MS = 1_000
const ODD_BACKOFF_MS = 5_000
/** Most jobs that one command takes. */
const MOST_AT_ONCE = 100
/** Commands that settle at once: Redis works on one while the answers that belong into the next come in. */
const MOST_SETTLES = 3

const endings: Record<Verdict['kind'], DeliveryOutcome> = {
  ...{ complete: 'delivered', retry: 'retried', fail: 'failed', gone: 'failed' },
}

export function createDeliveryWorker(
  subscription: Subscription,
  unsealed: Unsealed,
  share: ConcurrencyLimit,
  deps: DeliveryWorkerDeps,
): DeliveryWorker {
  const { line, work, sender, places, onHeld, onWrite, onEnded, onGone, onChanged, pauseAfterMs, log } = deps
  const { queue, concurrency, timeoutMs } = subscription
  const leaseMs = timeoutMs + MARGIN_MS
  const health = createEndpointBreaker()
  const stopping = new AbortController()
  const own = places.join(queue, () => (taking ? line.notify(queue) : void fill()))
  const onTheirWay = new Map<string, LeasedJob>()
  const ended: EndedDelivery[] = []
  /** Jobs that are being settled, in so many commands. */
  let unsettled = 0
  let settles = 0
  let isSettleDue = false
  const counts = { delivered: 0, retried: 0, failed: 0 }
  let lastStatus: number | null = null
  /** While it waits for jobs: ends the wait. */
  let taking: AbortController | undefined
  let timer: NodeJS.Timeout | undefined
  let whenIdle = () => {}

  /** How many jobs there is room for, when so many leave. */
  function room(leaving = 0): number {
    if (stopping.signal.aborted) return 0
    const inFlight = onTheirWay.size + ended.length + unsettled - leaving
    return Math.min(concurrency - inFlight, health.capacity(inFlight), MOST_AT_ONCE)
  }

  const requestFor = (max: number): TakeRequest => ({
    queue,
    max,
    leaseMs,
    worker: 'webhook',
    concurrencyLimit: share,
  })
  const atItsTurn = { take: () => own.take(room()), give: own.give }

  async function fill(): Promise<void> {
    if (taking || room() <= 0) {
      if (health.pauseMs() > 0) later(health.pauseMs())
      return
    }
    taking = new AbortController()
    try {
      const signal = AbortSignal.any([stopping.signal, taking.signal])
      const request = { ...requestFor(MOST_AT_ONCE), capacity: atItsTurn }
      const taken = await line.take(request, Number.POSITIVE_INFINITY, signal)
      begin(taken.jobs)
      if (taken.isLimitRevised) {
        onChanged(queue)
        later(TAKE_AGAIN_MS)
      }
    } catch {
      later(TAKE_AGAIN_MS)
    } finally {
      taking = undefined
    }
    if (!stopping.signal.aborted && timer === undefined) void fill()
  }

  function later(ms: number): void {
    if (stopping.signal.aborted) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      timer = undefined
      void fill()
    }, ms)
  }

  function begin(jobs: LeasedJob[]): void {
    if (stopping.signal.aborted) {
      line.giveBack({ queue, concurrencyLimit: share, capacity: atItsTurn }, jobs)
      return
    }
    for (const job of jobs) {
      onTheirWay.set(job.token + job.key, job)
      onHeld(queue, job.takenAtMs + leaseMs)
      void send(job)
    }
  }

  async function deliver(job: LeasedJob): Promise<DeliveryResult> {
    try {
      return await sender.send(buildDeliveryRequest(job, subscription, unsealed, Date.now()))
    } catch (error) {
      log.error({ queue, job: job.key, reason: (error as Error).message }, 'delivery could not be made')
      return { status: undefined, reason: 'the delivery could not be made', ms: 0 }
    }
  }

  async function send(job: LeasedJob): Promise<void> {
    const answer = await deliver(job)
    // It went back when this process ended.
    if (!onTheirWay.delete(job.token + job.key)) return
    own.give(1)
    const verdict = judge(answer, Date.now())
    note(answer, verdict)
    ended.push(settlementOf(job, answer, verdict))
    if (isSettleDue) return
    isSettleDue = true
    // Those that end in the same turn of the loop are settled together.
    setImmediate(() => {
      isSettleDue = false
      void settle()
    })
  }

  function note(answer: DeliveryResult, verdict: Verdict): void {
    lastStatus = answer.status ?? null
    const how = endings[verdict.kind]
    counts[how]++
    onEnded(how)
    if (verdict.kind === 'retry') noteFailure(verdict.reason, verdict.afterMs)
    else if (verdict.kind === 'gone') onGone(subscription, verdict.reason)
    // A job that is refused is the job's fault, and its receiver is well.
    else health.succeeded()
  }

  function noteFailure(reason: string, afterMs: number | undefined): void {
    health.failed(reason, afterMs)
    // What it waits for would be sent to a receiver that is to be left alone.
    if (health.capacity(onTheirWay.size) < MOST_AT_ONCE) taking?.abort()
    const sinceMs = health.failingSinceMs()
    if (pauseAfterMs === 0 || sinceMs === undefined || Date.now() - sinceMs < pauseAfterMs) return
    onGone(subscription, `No delivery has succeeded since ${new Date(sinceMs).toISOString()}: ${reason}`)
  }

  async function settle(): Promise<void> {
    if (settles >= MOST_SETTLES || ended.length === 0) return
    settles++
    const items = ended.splice(0, MOST_AT_ONCE)
    unsettled += items.length
    // One that waits for more already has asked for all there is room for.
    const max = taking || !line.hasNoWaiters(queue) ? 0 : own.take(room(items.length))
    let count = 0
    try {
      const next = max > 0 ? requestFor(max) : undefined
      const { refused, taken } = await work.settle(queue, items, next, share)
      count = taken.jobs.length
      unsettled -= items.length
      for (const [index, item] of items.entries()) settled(item, refused[index])
      begin(taken.jobs)
    } catch {
      await sleep(SETTLE_AGAIN_MS)
      unsettled -= items.length
      // Those that can still be settled before their locks run out.
      ended.push(...items.filter(({ lease: held }) => held.takenAtMs + leaseMs > Date.now()))
    } finally {
      settles--
      own.give(max - count)
    }
    if (ended.length > 0) void settle()
    else if (onTheirWay.size + unsettled === 0) whenIdle()
    void fill()
  }

  function settled(item: EndedDelivery, error: SluiceError | undefined): void {
    const { lease: held, outcome } = item
    onWrite(queue, held.key)
    if (!error) return
    log.warn({ queue, job: held.key, reason: error.message }, 'delivery not settled')
    // Its backoff is one that native workers alone can compute.
    if (error.code !== 'INVALID_OPTION' || outcome.outcome !== 'fail') return
    ended.push({ ...item, outcome: { ...outcome, retryAfterMs: ODD_BACKOFF_MS } })
  }

  async function stop(graceMs: number): Promise<void> {
    stopping.abort()
    own.leave()
    clearTimeout(timer)
    if (onTheirWay.size + ended.length + unsettled === 0) return
    let grace: NodeJS.Timeout | undefined
    const isOver = new Promise<void>((resolve) => {
      whenIdle = resolve
      grace = setTimeout(resolve, graceMs)
    })
    await isOver
    clearTimeout(grace)
    const jobs = [...onTheirWay.values()]
    onTheirWay.clear()
    line.giveBack({ queue, concurrencyLimit: share, capacity: atItsTurn }, jobs)
  }

  void fill()
  return {
    subscription,
    stats: () => ({
      ...{ inFlight: onTheirWay.size + ended.length + unsettled, ...counts, lastStatus },
      ...health.stats(),
    }),
    stop,
  }
}
