/** `performance.now` is replaced, so that windows pass without waiting. */
import t, { type Test } from 'tap'
import { createLagWindow } from '../../../src/redis/streams/lag-window.ts'

/** Stops the clock; it only advances by `pass`. */
function stopClock(t: Test): { pass(ms: number): void } {
  let nowMs = Math.ceil(performance.now())
  t.intercept(performance, 'now', { value: () => nowMs })
  return {
    pass: (ms) => {
      nowMs += ms
    },
  }
}

t.test('the lag is the worst recorded, in whole ms, and 0 before any', async (t) => {
  stopClock(t)
  const lag = createLagWindow()
  t.equal(lag.worstMs(), 0)
  lag.record(12.4)
  t.equal(lag.worstMs(), 12)
  lag.record(7)
  t.equal(lag.worstMs(), 12)
  lag.record(30.6)
  t.equal(lag.worstMs(), 31)
})

t.test('an entry from the future, by clocks that differ, is no lag', async (t) => {
  const lag = createLagWindow()
  lag.record(-250)
  t.equal(lag.worstMs(), 0)
})

t.test('the worst lag is kept for at least 10 s and dropped after 20 s', async (t) => {
  const { pass } = stopClock(t)
  const lag = createLagWindow()
  pass(5_000)
  lag.record(80)
  for (let second = 0; second < 10; second++) {
    t.equal(lag.worstMs(), 80, `${second} s later`)
    pass(1_000)
  }
  t.equal(lag.worstMs(), 80, '10 s later')
  pass(10_000)
  t.equal(lag.worstMs(), 0, '20 s later')
})

t.test('a later, smaller lag is reported once the worst is dropped', async (t) => {
  const { pass } = stopClock(t)
  const lag = createLagWindow()
  lag.record(80)
  pass(11_000)
  lag.record(5)
  t.equal(lag.worstMs(), 80)
  pass(10_001)
  t.equal(lag.worstMs(), 5)
  pass(10_001)
  t.equal(lag.worstMs(), 0)
})

t.test('a lag from before a long silence is not reported', async (t) => {
  const { pass } = stopClock(t)
  const lag = createLagWindow()
  lag.record(80)
  pass(60_000)
  t.equal(lag.worstMs(), 0)
  lag.record(80)
  pass(60_000)
  lag.record(3)
  t.equal(lag.worstMs(), 3)
})
