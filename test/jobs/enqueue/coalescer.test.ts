import t from 'tap'
import { type CoalescerOptions, createCoalescer } from '../../../src/jobs/enqueue/coalescer.ts'

interface Sent {
  lane: string
  items: number[]
  /** Resolves each item with ten times its value. */
  settle(): void
  fail(error: Error): void
}

/** A coalescer whose batches stay in flight until the test settles them. */
function setUp(options: Partial<CoalescerOptions<number, number>> = {}) {
  const sent: Sent[] = []
  const coalescer = createCoalescer<number, number>({
    batchMax: 100,
    batchSoon: 100,
    batchBytes: 1_000,
    delayMs: 0,
    inFlightMax: 4,
    waitingMax: 1_000,
    waitingFor: 'jobs wait to be written',
    send: (lane, items) =>
      new Promise((resolve, reject) => {
        sent.push({ lane, items, settle: () => resolve(items.map((item) => item * 10)), fail: reject })
      }),
    ...options,
  })
  const add = (item: number, { lane = 'q', bytes = 1 } = {}) => coalescer.add(lane, item, bytes)
  const addAll = (count: number, from = 0) => Array.from({ length: count }, (_, index) => add(from + index))
  const addMany = (items: number[]) =>
    coalescer.addMany(
      'q',
      items.map((item) => ({ item, bytes: 1 })),
    )
  const batches = () => sent.map(({ items }) => items)
  return { coalescer, sent, add, addAll, addMany, batches }
}

/** Resolves after the sends of this tick. */
const endOfTick = () => new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)))
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)

t.test('a lone item is sent at the end of its tick', async (t) => {
  const { sent, add, batches } = setUp()
  const result = add(7)
  t.same(batches(), [], 'not earlier')
  await endOfTick()
  t.match(sent, [{ lane: 'q', items: [7] }])
  sent[0]!.settle()
  t.equal(await result, 70)
})

t.test(
  'items that arrive in one tick are sent together, in order, and each gets its own result',
  async (t) => {
    const { sent, add, addMany, batches } = setUp()
    const results = [add(1), add(2), ...addMany([3, 4]), Promise.resolve().then(() => add(5))]
    await endOfTick()
    t.same(batches(), [[1, 2, 3, 4, 5]])
    sent[0]!.settle()
    t.same(await Promise.all(results), [10, 20, 30, 40, 50])
  },
)

t.test('a batch with batchSoon items is sent at once, and the next item opens another', async (t) => {
  const { addAll, add, batches } = setUp({ batchSoon: 3 })
  addAll(2)
  t.same(batches(), [])
  add(2)
  t.same(batches(), [[0, 1, 2]])
  add(3)
  await endOfTick()
  t.same(batches(), [[0, 1, 2], [3]])
})

t.test(
  'at most inFlightMax batches are in flight; the next grows meanwhile, and is sent when one returns',
  async (t) => {
    const { coalescer, sent, addAll, batches } = setUp({ batchMax: 5, batchSoon: 2, inFlightMax: 2 })
    addAll(4)
    t.same(batches(), [
      [0, 1],
      [2, 3],
    ])
    addAll(7, 4)
    await endOfTick()
    t.equal(sent.length, 2, 'neither batchSoon nor the end of the tick sends a third')
    t.match(coalescer.stats(), { activeBatches: 4, totalQueuedJobs: 7, batchesByType: { q: 11 } })
    sent[1]!.settle()
    await endOfTick()
    t.same(batches().slice(2), [range(4, 9)], 'one batch, of at most batchMax items')
    sent[0]!.settle()
    await endOfTick()
    t.same(batches().slice(3), [[9, 10]])
  },
)

t.test('batches are sent in the order of arrival, under any load', async (t) => {
  const { sent, addAll, batches } = setUp({ batchMax: 7, batchSoon: 3, inFlightMax: 3 })
  const results = addAll(100)
  // The last batch is settled first, so the order of the results is not that of the batches.
  for (let settled = 0; settled < sent.length; ) {
    const inFlight = sent.slice(settled)
    settled = sent.length
    for (const { settle } of inFlight.reverse()) settle()
    await endOfTick()
  }
  t.same(batches().flat(), range(0, 100))
  t.same(
    await Promise.all(results),
    range(0, 100).map((item) => item * 10),
  )
})

t.test('a batch has at most batchBytes, and a larger item is sent alone', async (t) => {
  const { add, batches } = setUp({ batchBytes: 10 })
  for (const [item, bytes] of [
    [1, 4],
    [2, 6],
    [3, 1],
    [4, 50],
    [5, 5],
    [6, 5],
    [7, 1],
  ] as const) {
    add(item, { bytes })
  }
  await endOfTick()
  t.same(batches(), [[1, 2], [3], [4], [5, 6]], 'four batches are in flight')
})

t.test('with batchMax 1 every item is sent alone and at once', async (t) => {
  const { addAll, addMany, batches } = setUp({ batchMax: 1, batchSoon: 16, inFlightMax: 5 })
  addAll(2)
  t.same(batches(), [[0], [1]])
  addMany([2, 3, 4])
  t.same(batches(), [[0], [1], [2], [3], [4]])
})

t.test('with delayMs a batch gathers items of later ticks for that long', async (t) => {
  const latch: { open?: () => void } = {}
  const sentAt: number[] = []
  const batches: number[][] = []
  const { add } = setUp({
    delayMs: 30,
    send: async (_lane, items) => {
      sentAt.push(performance.now())
      batches.push(items)
      latch.open?.()
      return items
    },
  })
  const sent = new Promise<void>((resolve) => {
    latch.open = resolve
  })
  const startedAt = performance.now()
  add(1)
  await endOfTick()
  add(2)
  await endOfTick()
  t.same(batches, [])
  await sent
  t.same(batches, [[1, 2]])
  t.ok(sentAt[0]! - startedAt >= 29)
})

// clearImmediate of a timeout would stop every setImmediate of the process.
t.test('with delayMs a batch with batchSoon items is sent at once', async (t) => {
  const { coalescer, sent, addAll, batches } = setUp({ delayMs: 60_000, batchSoon: 3 })
  const results = addAll(3)
  t.same(batches(), [[0, 1, 2]])
  await endOfTick()
  sent[0]!.settle()
  t.same(await Promise.all(results), [0, 10, 20])
  await coalescer.close()
})

t.test('beyond waitingMax an item is refused with OVERLOADED, not executed', async (t) => {
  const { coalescer, addAll, add } = setUp({ waitingMax: 3 })
  addAll(3)
  t.throws(() => add(4), {
    code: 'OVERLOADED',
    details: {
      outcome: 'not_executed',
      retryAfterS: 1,
      detail:
        /^3 jobs wait to be written, and the limit is 3\. Repeat the request after `Retry-After` seconds\.$/,
    },
  })
  t.equal(coalescer.stats().totalQueuedJobs, 3)
  await endOfTick()
  add(5)
  t.equal(coalescer.stats().totalQueuedJobs, 1, 'items in flight do not count')
})

t.test('addMany accepts all items or none, and rejects each promise', async (t) => {
  const { coalescer, addMany, add, batches } = setUp({ waitingMax: 4 })
  add(1)
  const refused = await Promise.allSettled(addMany([2, 3, 4, 5]))
  t.match(refused, Array(4).fill({ status: 'rejected', reason: { code: 'OVERLOADED' } }))
  t.equal(coalescer.stats().totalQueuedJobs, 1)
  addMany([6, 7, 8])
  await endOfTick()
  t.same(batches(), [[1, 6, 7, 8]])
})

t.test('waitingMax applies to all lanes together', async (t) => {
  const { add } = setUp({ waitingMax: 2 })
  add(1, { lane: 'a' })
  add(2, { lane: 'b' })
  t.throws(() => add(3, { lane: 'c' }), { code: 'OVERLOADED' })
})

t.test('a rejected send rejects each of its items, and the lane continues', async (t) => {
  const { sent, addAll, batches } = setUp({ batchSoon: 2, inFlightMax: 1 })
  const results = addAll(4)
  const error = new Error('Redis went away')
  sent[0]!.fail(error)
  for (const result of results.slice(0, 2)) await t.rejects(result, error)
  await endOfTick()
  t.same(batches(), [
    [0, 1],
    [2, 3],
  ])
  sent[1]!.settle()
  t.same(await Promise.all(results.slice(2)), [20, 30])
})

t.test('an item with an error of its own is rejected alone', async (t) => {
  const error = new Error('a key of this queue is damaged')
  const { addAll } = setUp({ send: async (_lane, items) => items.map((item) => (item === 1 ? error : item)) })
  const [first, second, third] = await Promise.allSettled(addAll(3))
  t.match(first, { status: 'fulfilled', value: 0 })
  t.match(second, { status: 'rejected', reason: error })
  t.match(third, { status: 'fulfilled', value: 2 })
})

t.test('lanes do not wait for each other, and never share a batch', async (t) => {
  const { sent, add } = setUp({ inFlightMax: 1 })
  add(1, { lane: 'a' })
  await endOfTick()
  add(2, { lane: 'a' })
  add(3, { lane: 'b' })
  await endOfTick()
  t.match(sent, [
    { lane: 'a', items: [1] },
    { lane: 'b', items: [3] },
  ])
  t.equal(sent.length, 2)
})

t.test('close sends waiting batches at once, and resolves after every result', async (t) => {
  const { coalescer, sent, addAll, batches } = setUp({ batchMax: 2, inFlightMax: 1 })
  const results = addAll(3)
  const events: string[] = []
  const closed = coalescer.close().then(() => events.push('closed'))
  t.same(batches(), [[0, 1]])
  await endOfTick()
  sent[0]!.settle()
  await endOfTick()
  t.same(batches(), [[0, 1], [2]])
  t.same(events, [])
  sent[1]!.fail(new Error('gone'))
  const outcomes = Promise.allSettled(results).then((settled) => {
    events.push('settled')
    return settled.map(({ status }) => status)
  })
  await closed
  t.same(await outcomes, ['fulfilled', 'fulfilled', 'rejected'])
  t.same(events, ['settled', 'closed'])
})

t.test('close without items resolves, also twice', async (t) => {
  const { coalescer } = setUp()
  await coalescer.close()
  await coalescer.close()
  t.equal(coalescer.stats().batchesSent, 0)
})

t.test('the statistics count waiting and sent items and the mean batch size', async (t) => {
  const { coalescer, sent, add, addAll } = setUp({ batchSoon: 3, inFlightMax: 1 })
  t.same(coalescer.stats(), {
    activeBatches: 0,
    totalQueuedJobs: 0,
    batchesByType: {},
    batchesSent: 0,
    jobsSent: 0,
    meanBatchSize: 0,
  })
  addAll(3)
  add(3)
  add(4, { lane: 'other' })
  t.same(coalescer.stats(), {
    activeBatches: 3,
    totalQueuedJobs: 2,
    batchesByType: { q: 4, other: 1 },
    batchesSent: 1,
    jobsSent: 3,
    meanBatchSize: 3,
  })
  await endOfTick()
  t.match(coalescer.stats(), { totalQueuedJobs: 1, batchesSent: 2, jobsSent: 4, meanBatchSize: 2 })
  sent[0]!.settle()
  await endOfTick()
  t.match(coalescer.stats(), { totalQueuedJobs: 0, batchesSent: 3, jobsSent: 5, meanBatchSize: 1.67 })
})

t.test('an idle lane is dropped, so memory does not grow with the number of queues', async (t) => {
  const { coalescer, sent, add } = setUp()
  const results = range(0, 1_000).map((item) => add(item, { lane: `q${item}` }))
  await endOfTick()
  t.equal(Object.keys(coalescer.stats().batchesByType).length, 1_000)
  for (const { settle } of sent) settle()
  await Promise.all(results)
  await endOfTick()
  t.same(coalescer.stats().batchesByType, {})
  const again = add(1, { lane: 'q1' })
  await endOfTick()
  sent.at(-1)!.settle()
  t.equal(await again, 10, 'it is created again when needed')
})
