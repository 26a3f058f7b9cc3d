/**
 * `performance.now` is the test's own where a slow machine would change what is right; what a timer waits is measured from
 * below only.
 */
import { hrtime } from 'node:process'
import t, { type Test } from 'tap'
import { createLagWindow, createReadPacer } from '../../../src/redis/streams/read-pacer.ts'

const AT_ONCE = 4
const PAUSE_MS = 25
/** A timer may be this much early, as its clock has whole milliseconds. */
const EARLY_MS = 2
/** Far more than anything here takes. */
const LATE_MS = 5_000

/** The clock stands still, but for what is passed. */
function stopClock(t: Test): { pass(ms: number): void } {
  // Whole, so that sums of it are exact.
  let nowMs = Math.ceil(performance.now())
  t.intercept(performance, 'now', { value: () => nowMs })
  return {
    pass: (ms) => {
      nowMs += ms
    },
  }
}

/** How long it took in truth, ms. */
async function timeOf(work: () => Promise<void>): Promise<number> {
  const startedAt = hrtime.bigint()
  await work()
  return Number(hrtime.bigint() - startedAt) / 1e6
}

const takeTurns = async (turns: { next(): Promise<void> }, many: number) => {
  for (let i = 0; i < many; i++) await turns.next()
}

/** Whether it is settled when all that can happen without a timer has happened. */
async function isSettled(promise: Promise<void>): Promise<boolean> {
  let settled = false
  void promise.then(() => {
    settled = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  return settled
}

t.test('four turns may be taken at once, and the fifth is waited for', async (t) => {
  stopClock(t)
  const turns = createReadPacer()
  for (let i = 0; i < AT_ONCE; i++) t.ok(await isSettled(turns.next()), `turn ${i + 1}`)
  let fifth: Promise<void> | undefined
  const elapsedMs = await timeOf(async () => {
    fifth = turns.next()
    t.notOk(await isSettled(fifth))
    await fifth
  })
  t.ok(elapsedMs >= PAUSE_MS - EARLY_MS && elapsedMs < LATE_MS, `${elapsedMs} ms`)
})

t.test('whoever takes turn after turn gets one each 25 ms', async (t) => {
  const turns = createReadPacer()
  const elapsedMs = await timeOf(() => takeTurns(turns, AT_ONCE + 10))
  t.ok(elapsedMs >= 10 * (PAUSE_MS - EARLY_MS) && elapsedMs < LATE_MS, `${elapsedMs} ms`)
})

t.test('while it is urgent turns come each 5 ms', async (t) => {
  const { pass } = stopClock(t)
  let isUrgent = true
  const turns = createReadPacer(() => isUrgent)
  await takeTurns(turns, AT_ONCE)
  pass(5)
  t.ok(await isSettled(turns.next()))
  isUrgent = false
  pass(PAUSE_MS - 1)
  const next = turns.next()
  t.notOk(await isSettled(next), 'and then each 25 again')
  turns.close()
  await next
})

t.test('after a pause as many turns are there as it was long, and never more than four', async (t) => {
  const { pass } = stopClock(t)
  const turns = createReadPacer()
  await takeTurns(turns, AT_ONCE)
  for (const [pauses, more] of [
    [1, 1],
    [2, 2],
    [3.9, 3],
    [4, 4],
    [1_000, 4],
  ] as const) {
    pass(pauses * PAUSE_MS)
    for (let i = 0; i < more; i++) t.ok(await isSettled(turns.next()), `${i + 1} after ${pauses} pauses`)
    const next = turns.next()
    t.notOk(await isSettled(next), `no more after ${pauses} pauses`)
    turns.close()
    await next
    // What is owed is paid, so that each row begins with nothing.
    pass((1 - (pauses < AT_ONCE ? pauses - more : 0)) * PAUSE_MS)
  }
})

t.test('what was waited for is not given a second time', async (t) => {
  const { pass } = stopClock(t)
  const turns = createReadPacer()
  await takeTurns(turns, AT_ONCE + 1)
  pass(PAUSE_MS)
  t.notOk(await isSettled(turns.next()), 'the pause has been used by the fifth')
  turns.close()
})

t.test('to close releases whoever waits, at once', async (t) => {
  const { pass } = stopClock(t)
  const turns = createReadPacer()
  await takeTurns(turns, AT_ONCE)
  // The clock set back by an hour: this turn would come in an hour.
  pass(-3_600_000)
  const waiting = turns.next()
  t.notOk(await isSettled(waiting))
  turns.close()
  t.ok(await isSettled(waiting))
})

t.test('to close is harmless when nobody waits, before a turn, after it and twice', async (t) => {
  const turns = createReadPacer()
  turns.close()
  await takeTurns(turns, AT_ONCE + 1)
  turns.close()
  turns.close()
  t.pass()
})

t.test('the lag is the worst that was noted, in whole ms, and 0 when none was', async (t) => {
  stopClock(t)
  const lag = createLagWindow()
  t.equal(lag.worstMs(), 0)
  lag.note(12.4)
  t.equal(lag.worstMs(), 12)
  lag.note(7)
  t.equal(lag.worstMs(), 12)
  lag.note(30.6)
  t.equal(lag.worstMs(), 31)
})

t.test('events from the future, by clocks that differ, are no lag', async (t) => {
  const lag = createLagWindow()
  lag.note(-250)
  t.equal(lag.worstMs(), 0)
})

t.test('the worst is told for 10 s at least and forgotten after 20 s', async (t) => {
  const { pass } = stopClock(t)
  const lag = createLagWindow()
  pass(5_000)
  lag.note(80)
  for (let second = 0; second < 10; second++) {
    t.equal(lag.worstMs(), 80, `${second} s later`)
    pass(1_000)
  }
  t.equal(lag.worstMs(), 80, '10 s later')
  pass(10_000)
  t.equal(lag.worstMs(), 0, '20 s later')
})

t.test('what comes later and is less is told once the worst is forgotten', async (t) => {
  const { pass } = stopClock(t)
  const lag = createLagWindow()
  lag.note(80)
  pass(11_000)
  lag.note(5)
  t.equal(lag.worstMs(), 80)
  pass(10_001)
  t.equal(lag.worstMs(), 5)
  pass(10_001)
  t.equal(lag.worstMs(), 0)
})

t.test('after a long silence nothing is told of what was before it', async (t) => {
  const { pass } = stopClock(t)
  const lag = createLagWindow()
  lag.note(80)
  pass(60_000)
  t.equal(lag.worstMs(), 0)
  lag.note(80)
  pass(60_000)
  lag.note(3)
  t.equal(lag.worstMs(), 3)
})
