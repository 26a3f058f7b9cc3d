/** The estimate of Redis' clock: it counts on with the monotonic clock, and only a reply that contradicts it moves it. */
import t from 'tap'
import { createRedisClock, revisedOffset } from '../../src/redis/redis-clock.ts'

const HOUR_MS = 3_600_000

/** A reply of TIME. */
const timeOf = (ms: number) => [`${Math.floor(ms / 1_000)}`, `${Math.round((ms % 1_000) * 1_000)}`]

t.test(
  'an offset that the reply allows is kept; another is replaced by the middle of what is possible',
  async (t) => {
    // Redis read 1,000 at some time between 100 and 140, so its offset is between 860 and 900.
    t.equal(revisedOffset(860, 1_000, 100, 140), 860)
    t.equal(revisedOffset(900, 1_000, 100, 140), 900)
    t.equal(revisedOffset(859, 1_000, 100, 140), 880)
    t.equal(revisedOffset(901, 1_000, 100, 140), 880)
  },
)

t.test('the machine serves until Redis has replied', async (t) => {
  const clock = createRedisClock(async () => Promise.reject(new Error('down')))
  t.ok(Math.abs(clock.nowMs() - Date.now()) < 50)
  t.equal(clock.machineOffsetMs(), undefined)
  clock.sync()
  await new Promise((resolve) => setImmediate(resolve))
  t.ok(Math.abs(clock.nowMs() - Date.now()) < 50, 'a failed reading changes nothing')
  t.equal(clock.machineOffsetMs(), undefined)
})

t.test('the time is that of Redis, whatever the machine says, then and after a step', async (t) => {
  const redisMs = Date.now() - 10 * 60_000
  const startedAt = performance.now()
  const clock = createRedisClock(async () => timeOf(redisMs + performance.now() - startedAt))
  clock.sync()
  await new Promise((resolve) => setImmediate(resolve))
  const deviation = () => Math.abs(clock.nowMs() - (redisMs + performance.now() - startedAt))
  t.ok(deviation() <= 5, `${deviation()} ms`)
  t.ok(Math.abs(clock.machineOffsetMs()! - 10 * 60_000) < 50)
  const { now } = Date
  t.teardown(() => {
    Date.now = now
  })
  Date.now = () => now() + HOUR_MS
  t.ok(deviation() <= 5, 'an hour forward')
  Date.now = () => now() - HOUR_MS
  t.ok(deviation() <= 5, 'an hour back')
  t.ok(Number.isInteger(clock.nowMs()))
})

t.test('a use after the refresh interval reads again, once; readings do not overlap', async (t) => {
  let readings = 0
  let elapsedMs = 0
  const { now } = performance
  t.teardown(() => {
    performance.now = now
  })
  performance.now = () => now.call(performance) + elapsedMs
  const clock = createRedisClock(async () => {
    readings++
    return timeOf(Date.now() + elapsedMs)
  })
  clock.nowMs()
  t.equal(readings, 0, 'nothing is read before Redis is connected')
  clock.sync()
  clock.sync()
  t.equal(readings, 1)
  await new Promise((resolve) => setImmediate(resolve))
  clock.nowMs()
  t.equal(readings, 1)
  elapsedMs = 10_001
  clock.nowMs()
  clock.nowMs()
  t.equal(readings, 2)
})
