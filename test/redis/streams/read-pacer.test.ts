/**
 * `performance.now` is replaced where a slow machine would change the result; timers are only checked for a
 * minimum.
 */
import { hrtime } from 'node:process'
import t, { type Test } from 'tap'
import { createReadPacer } from '../../../src/redis/streams/read-pacer.ts'

const BURST = 4
const PAUSE_MS = 25
/** A timer may fire this much early, because its clock has whole milliseconds. */
const EARLY_MS = 2
/** Far longer than any step here. */
const LATE_MS = 5_000

/** Stops the clock; it only advances by `pass`. */
function stopClock(t: Test): { pass(ms: number): void } {
  // A whole number, so that sums are exact.
  let nowMs = Math.ceil(performance.now())
  t.intercept(performance, 'now', { value: () => nowMs })
  return {
    pass: (ms) => {
      nowMs += ms
    },
  }
}

/** Measures by a clock that is not replaced, ms. */
async function timeOf(work: () => Promise<void>): Promise<number> {
  const startedAt = hrtime.bigint()
  await work()
  return Number(hrtime.bigint() - startedAt) / 1e6
}

const takeReads = async (pacer: { next(): Promise<void> }, count: number) => {
  for (let i = 0; i < count; i++) await pacer.next()
}

/** Whether the promise settles without a timer. */
async function isSettled(promise: Promise<void>): Promise<boolean> {
  let settled = false
  void promise.then(() => {
    settled = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  return settled
}

t.test('four reads may begin at once, and the fifth waits', async (t) => {
  stopClock(t)
  const pacer = createReadPacer()
  for (let i = 0; i < BURST; i++) t.ok(await isSettled(pacer.next()), `read ${i + 1}`)
  let fifth: Promise<void> | undefined
  const elapsedMs = await timeOf(async () => {
    fifth = pacer.next()
    t.notOk(await isSettled(fifth))
    await fifth
  })
  t.ok(elapsedMs >= PAUSE_MS - EARLY_MS && elapsedMs < LATE_MS, `${elapsedMs} ms`)
})

t.test('continuous reads are 25 ms apart', async (t) => {
  const pacer = createReadPacer()
  const elapsedMs = await timeOf(() => takeReads(pacer, BURST + 10))
  t.ok(elapsedMs >= 10 * (PAUSE_MS - EARLY_MS) && elapsedMs < LATE_MS, `${elapsedMs} ms`)
})

t.test('urgent reads are 5 ms apart', async (t) => {
  const { pass } = stopClock(t)
  let isUrgent = true
  const pacer = createReadPacer(() => isUrgent)
  await takeReads(pacer, BURST)
  pass(5)
  t.ok(await isSettled(pacer.next()))
  isUrgent = false
  pass(PAUSE_MS - 1)
  const next = pacer.next()
  t.notOk(await isSettled(next), 'then 25 ms again')
  pacer.close()
  await next
})

t.test('a pause refills one read per 25 ms, up to four', async (t) => {
  const { pass } = stopClock(t)
  const pacer = createReadPacer()
  await takeReads(pacer, BURST)
  for (const [pauses, more] of [
    [1, 1],
    [2, 2],
    [3.9, 3],
    [4, 4],
    [1_000, 4],
  ] as const) {
    pass(pauses * PAUSE_MS)
    for (let i = 0; i < more; i++) t.ok(await isSettled(pacer.next()), `${i + 1} after ${pauses} pauses`)
    const next = pacer.next()
    t.notOk(await isSettled(next), `no more after ${pauses} pauses`)
    pacer.close()
    await next
    // Pay back the read taken in advance, so that each row begins with an empty bucket.
    pass((1 - (pauses < BURST ? pauses - more : 0)) * PAUSE_MS)
  }
})

t.test('a read that waited uses up its pause', async (t) => {
  const { pass } = stopClock(t)
  const pacer = createReadPacer()
  await takeReads(pacer, BURST + 1)
  pass(PAUSE_MS)
  t.notOk(await isSettled(pacer.next()), 'the fifth read used the pause')
  pacer.close()
})

t.test('close resolves a pending read at once', async (t) => {
  const { pass } = stopClock(t)
  const pacer = createReadPacer()
  await takeReads(pacer, BURST)
  // With the clock set back by an hour, this read would begin in an hour.
  pass(-3_600_000)
  const waiting = pacer.next()
  t.notOk(await isSettled(waiting))
  pacer.close()
  t.ok(await isSettled(waiting))
})

t.test('close is harmless without a pending read, before and after reads, and twice', async (t) => {
  const pacer = createReadPacer()
  pacer.close()
  await takeReads(pacer, BURST + 1)
  pacer.close()
  pacer.close()
  t.pass()
})
