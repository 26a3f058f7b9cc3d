/** The parts of a delivery worker, alone: intake, ongoing deliveries, slot reservations and batched settling. */
import t from 'tap'
import type { LeasedJob, TakeResult } from '../../../src/dispatch/leased-job.ts'
import { EMPTY_TAKE } from '../../../src/dispatch/take-reply.ts'
import { createDeliveryIntake } from '../../../src/webhooks/delivery/delivery-intake.ts'
import type { EndedDelivery } from '../../../src/webhooks/delivery/delivery-settlement.ts'
import { createOngoingDeliveries } from '../../../src/webhooks/delivery/ongoing-deliveries.ts'
import { createSettlementBatcher } from '../../../src/webhooks/delivery/settlement-batcher.ts'
import { createSlotReservations } from '../../../src/webhooks/delivery/slot-reservations.ts'
import type { DeliveryResult } from '../../../src/webhooks/endpoints/webhook-client.ts'
import { eventually } from '../../helpers/app.ts'

const jobOf = (key: string) => ({ queue: 'q', key }) as LeasedJob
const delivery = (key: string): EndedDelivery => ({ lease: jobOf(key), outcome: { outcome: 'release' } })
const keysOf = (batch: EndedDelivery[]) => batch.map(({ lease }) => lease.key)
const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

function latch<T>() {
  let open = (_: T) => {}
  const opened = new Promise<T>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

/** Every batch waits for its own latch. */
function openBatcher(isLeased = (_: EndedDelivery) => true) {
  const batches: { keys: string[]; done: ReturnType<typeof latch<EndedDelivery[] | Error>> }[] = []
  const log: string[] = []
  const batcher = createSettlementBatcher({
    async settle(batch) {
      const done = latch<EndedDelivery[] | Error>()
      batches.push({ keys: keysOf(batch), done })
      log.push(`settle ${keysOf(batch).join()}`)
      const result = await done.opened
      if (result instanceof Error) throw result
      return result
    },
    isLeased,
    onBatchEnd: () => log.push('end'),
    onAdvance: () => log.push('advance'),
    retryMs: 1,
  })
  return { batcher, batches, log }
}

t.test('deliveries that end in the same turn are settled together', async (t) => {
  const { batcher, batches } = openBatcher()
  for (const key of ['a', 'b']) batcher.add(delivery(key))
  t.equal(batches.length, 0)
  await nextTurn()
  t.same(batches[0]?.keys, ['a', 'b'])
  t.equal(batcher.count(), 2)
  batches[0]?.done.open([])
  await eventually(() => batcher.count() === 0)
})

t.test('a batch has at most 100 deliveries, and at most 3 commands are in flight', async (t) => {
  const { batcher, batches, log } = openBatcher()
  for (let i = 0; i < 101; i++) batcher.add(delivery(`a${i}`))
  await nextTurn()
  t.equal(batches[0]?.keys.length, 100)
  for (const key of ['b', 'c', 'd']) {
    batcher.add(delivery(key))
    await nextTurn()
  }
  t.same(
    batches.slice(1).map(({ keys }) => keys),
    [['a100', 'b'], ['c']],
  )
  log.length = 0
  batches[1]?.done.open([])
  await eventually(() => log.includes('advance'))
  t.same(log, ['end', 'settle d', 'advance'], 'the next batch goes before anything else is taken')
})

t.test('a failed batch is settled again, without the jobs whose lease is over', async (t) => {
  const { batcher, batches } = openBatcher(({ lease }) => lease.key !== 'late')
  for (const key of ['a', 'late']) batcher.add(delivery(key))
  await nextTurn()
  batches[0]?.done.open(new Error('Redis is away'))
  await eventually(() => batches.length === 2)
  t.same(batches[1]?.keys, ['a'])
  batches[1]?.done.open([delivery('again')])
  await eventually(() => batches.length === 3)
  t.same(batches[2]?.keys, ['again'])
  t.equal(batcher.count(), 1)
})

t.test('the result of an abandoned delivery is ignored', async (t) => {
  const results: string[] = []
  const sent = new Map<string, ReturnType<typeof latch<DeliveryResult>>>()
  const ongoing = createOngoingDeliveries({
    send(job) {
      const result = latch<DeliveryResult>()
      sent.set(job.key, result)
      return result.opened
    },
    onEnd: (job) => results.push(job.key),
  })
  ongoing.begin(jobOf('a'))
  ongoing.begin(jobOf('b'))
  const result = { status: undefined, reason: '', isUnsent: false, ms: 1 } as DeliveryResult
  sent.get('a')?.open(result)
  await eventually(() => results.length === 1)
  t.equal(ongoing.count(), 1)
  t.match(ongoing.abandon(), [{ key: 'b' }])
  sent.get('b')?.open(result)
  await nextTurn()
  t.same(results, ['a'])
})

t.test('slots that a take with a batch does not use are returned when the batch has ended', async (t) => {
  let free = 10
  const slots = {
    take(count: number) {
      free -= count
      return count
    },
    giveUnused(count: number) {
      free += count
    },
  }
  const reservations = createSlotReservations(slots, (leaving) => 2 + leaving)
  t.equal(reservations.waiting.take(), 2)
  reservations.waiting.give(1)
  t.equal(free, 9)
  const withBatch = reservations.withBatch(3)
  t.equal(withBatch.take(), 5)
  withBatch.give(4)
  t.equal(free, 4, 'not yet')
  reservations.returnUnused()
  reservations.returnUnused()
  t.equal(free, 8)
})

function openIntake(hasCapacity: () => boolean = () => true, pauseMs = () => 0) {
  const takes: { signal: AbortSignal; done: ReturnType<typeof latch<TakeResult | Error>> }[] = []
  const taken: TakeResult[] = []
  const intake = createDeliveryIntake({
    async take(signal) {
      const done = latch<TakeResult | Error>()
      takes.push({ signal, done })
      signal.addEventListener('abort', () => done.open(EMPTY_TAKE))
      const result = await done.opened
      if (result instanceof Error) throw result
      return result
    },
    hasCapacity,
    pauseMs,
    onTaken: (result) => taken.push(result),
  })
  return { intake, takes, taken }
}

t.test('one take runs at a time, and another follows when it returned jobs', async (t) => {
  const { intake, takes, taken } = openIntake()
  intake.fill()
  intake.fill()
  t.equal(takes.length, 1)
  t.ok(intake.isTaking())
  takes[0]?.done.open({ ...EMPTY_TAKE, jobs: [jobOf('a')] })
  await eventually(() => takes.length === 2)
  t.match(taken, [{ jobs: [{ key: 'a' }] }])
  intake.stop()
})

t.test('nothing is taken without capacity, and a paused endpoint is tried after the pause', async (t) => {
  let pauseMs = 30
  const { intake, takes } = openIntake(
    () => pauseMs === 0,
    () => pauseMs,
  )
  intake.fill()
  t.equal(takes.length, 0)
  pauseMs = 0
  await eventually(() => takes.length === 1)
  intake.stop()
})

t.test('a pause that ends while the intake looks at it does not stop the deliveries', async (t) => {
  for (let ends = 1; ends <= 4; ends++) {
    let looks = 0
    const pauseMs = () => (++looks > ends ? 0 : 1)
    const { intake, takes } = openIntake(() => pauseMs() === 0, pauseMs)
    intake.fill()
    await eventually(() => takes.length > 0)
    t.equal(takes.length, 1, `after ${ends} looks`)
    intake.stop()
  }
})

t.test('a failed take and a revised limit wait before the next take', async (t) => {
  for (const result of [new Error('Redis is away'), { ...EMPTY_TAKE, isLimitRevised: true }]) {
    const { intake, takes } = openIntake()
    const began = performance.now()
    intake.fill()
    takes[0]?.done.open(result)
    await eventually(() => takes.length === 2)
    t.ok(performance.now() - began > 900)
    intake.stop()
  }
})

t.test('stop ends the take, and nothing is taken after it', async (t) => {
  const { intake, takes, taken } = openIntake()
  intake.fill()
  intake.stop()
  t.ok(takes[0]?.signal.aborted)
  await eventually(() => taken.length === 1)
  intake.fill()
  await nextTurn()
  t.equal(takes.length, 1)
})
