/** The endpoint breaker: when it opens, how long it pauses, and what closes it. Time is a number. */
import t from 'tap'
import { createEndpointBreaker } from '../../../src/webhooks/delivery/endpoint-breaker.ts'

function setUp() {
  const clock = { ms: 1_000_000 }
  const breaker = createEndpointBreaker(() => clock.ms)
  const fail = (times: number, afterMs?: number) => {
    for (let i = 0; i < times; i++) breaker.failed('answered 500', afterMs)
  }
  return { clock, breaker, fail }
}

t.test('four failures in a row leave it closed, the fifth opens it for a second', async (t) => {
  const { clock, breaker, fail } = setUp()
  fail(4)
  t.equal(breaker.capacity(0), Number.POSITIVE_INFINITY)
  t.match(breaker.stats(), { failing: false, failuresInARow: 4, retryInMs: 0 })
  fail(1)
  t.equal(breaker.capacity(0), 0)
  t.equal(breaker.pauseMs(), 1_000)
  t.match(breaker.stats(), { failing: true, failuresInARow: 5, retryInMs: 1_000, lastError: 'answered 500' })
  clock.ms += 999
  t.equal(breaker.capacity(0), 0)
  clock.ms += 1
  t.equal(breaker.pauseMs(), 0)
})

t.test('half-open lets one delivery through at a time', async (t) => {
  const { clock, breaker, fail } = setUp()
  fail(5)
  clock.ms += 1_000
  t.equal(breaker.capacity(0), 1)
  t.equal(breaker.capacity(1), 0)
  t.equal(breaker.capacity(7), 0)
})

t.test('each failure while half-open doubles the pause, up to a minute', async (t) => {
  const { clock, breaker, fail } = setUp()
  fail(5)
  const pauses = [breaker.pauseMs()]
  for (let i = 0; i < 8; i++) {
    clock.ms += breaker.pauseMs()
    fail(1)
    pauses.push(breaker.pauseMs())
  }
  t.same(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000])
})

t.test('failures of deliveries that were in flight when it opened do not lengthen the pause', async (t) => {
  const { clock, breaker, fail } = setUp()
  fail(5)
  clock.ms += 400
  fail(20)
  t.equal(breaker.pauseMs(), 600)
  clock.ms += 600
  fail(1)
  t.equal(breaker.pauseMs(), 2_000, 'nor the next one')
})

t.test('a success closes it, ends the time of failing, and the next pause is short again', async (t) => {
  const { clock, breaker, fail } = setUp()
  fail(5)
  clock.ms += 1_000
  fail(1)
  clock.ms += 2_000
  breaker.succeeded()
  t.equal(breaker.capacity(50), Number.POSITIVE_INFINITY)
  t.equal(breaker.failingMs(), undefined)
  t.match(breaker.stats(), { failing: false, failuresInARow: 0, retryInMs: 0, lastError: 'answered 500' })
  fail(5)
  t.equal(breaker.pauseMs(), 1_000)
})

t.test('the time of failing counts from the first failure in a row', async (t) => {
  const { clock, breaker, fail } = setUp()
  t.equal(breaker.failingMs(), undefined)
  fail(1)
  clock.ms += 5_000
  fail(1)
  t.equal(breaker.failingMs(), 5_000)
  breaker.succeeded()
  clock.ms += 5_000
  fail(1)
  t.equal(breaker.failingMs(), 0)
})

t.test("an hour's step of the wall clock changes no pause", async (t) => {
  const now = Date.now
  t.teardown(() => {
    Date.now = now
  })
  for (const stepMs of [3_600_000, -3_600_000]) {
    Date.now = now
    const breaker = createEndpointBreaker()
    for (let i = 0; i < 5; i++) breaker.failed('answered 500', undefined)
    Date.now = () => now() + stepMs
    const pauseMs = breaker.pauseMs()
    t.ok(pauseMs > 0 && pauseMs <= 1_000, `${pauseMs} ms after a step of ${stepMs} ms`)
    t.ok(breaker.failingMs()! < 1_000)
  }
})

t.test('Retry-After pauses it at the first failure, for at most five minutes', async (t) => {
  const { clock, breaker, fail } = setUp()
  fail(1, 30_000)
  t.equal(breaker.capacity(0), 0)
  t.equal(breaker.pauseMs(), 30_000)
  t.equal(breaker.stats().failing, false)
  clock.ms += 30_000
  t.equal(breaker.capacity(3), Number.POSITIVE_INFINITY, 'it was not open')
  fail(1, 86_400_000)
  t.equal(breaker.pauseMs(), 300_000)
})

t.test(
  'the longest Retry-After counts, and it is not shortened by the pause of an open breaker',
  async (t) => {
    const { breaker, fail } = setUp()
    fail(1, 20_000)
    fail(1, 10_000)
    t.equal(breaker.pauseMs(), 20_000)
    fail(10)
    t.equal(breaker.pauseMs(), 20_000)
  },
)
