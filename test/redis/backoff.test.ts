/** The delays before another attempt. The jitter is 25 %, so bounds are checked. */
import t from 'tap'
import { jitter, reconnectDelayMs, retryDelayMs } from '../../src/redis/backoff.ts'

function within(delayMs: number | undefined, ms: number): boolean {
  return delayMs !== undefined && delayMs >= Math.floor(ms * 0.75) && delayMs <= Math.ceil(ms * 1.25)
}
const first = { retries: 0, maxRetries: 3, elapsedMs: 0, downMs: 0 }

t.test('jitter varies a delay by a quarter, in whole ms', async (t) => {
  const delays = Array.from({ length: 200 }, () => jitter(1_000))
  t.ok(delays.every((ms) => Number.isInteger(ms) && within(ms, 1_000)))
  t.ok(new Set(delays).size > 1)
})

t.test('reconnect delays double from 50 ms to a second', async (t) => {
  for (const [index, ms] of [50, 100, 200, 400, 800, 1_000, 1_000].entries()) {
    t.ok(within(reconnectDelayMs(index + 1), ms), `attempt ${index + 1}`)
  }
  t.ok(within(reconnectDelayMs(10_000), 1_000))
})

t.test('a command is retried after 10, 20 and 40 ms', async (t) => {
  for (const [retries, ms] of [10, 20, 40].entries()) {
    t.ok(within(retryDelayMs({ ...first, retries }), ms), `retry ${retries + 1}`)
  }
})

t.test('a command is not retried too often, too late, or while Redis is known to be down', async (t) => {
  t.equal(retryDelayMs({ ...first, retries: 3 }), undefined)
  t.equal(retryDelayMs({ ...first, maxRetries: 0 }), undefined)
  t.equal(retryDelayMs({ ...first, elapsedMs: 75 }), undefined)
  t.ok(retryDelayMs({ ...first, elapsedMs: 66 }))
  t.equal(retryDelayMs({ ...first, downMs: 1_000 }), undefined)
  t.ok(retryDelayMs({ ...first, downMs: 999 }))
})
