/** A lagging event loop: new work is rejected immediately, probes and the scope manage are not, until the lag ends. */
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

/** Blocks the event loop `rounds` times for `ms`, with timers running in between. */
async function lag(ms: number, rounds: number) {
  for (let round = 0; round < rounds; round++) {
    const until = performance.now() + ms
    while (performance.now() < until);
    await new Promise((resolve) => setImmediate(resolve))
  }
}

t.test('jobs are rejected while the event loop lags, and health still responds', async (t) => {
  const app = await startApp(redis, { MAX_EVENT_LOOP_DELAY: '20' })
  t.teardown(() => app.http.close())
  const add = () =>
    app.http.inject({
      method: 'POST',
      url: '/jobs',
      headers: { 'content-type': 'application/json' },
      payload: '{"name":"n"}',
    })
  // The first samples after startup are ignored.
  await new Promise((resolve) => setTimeout(resolve, 600))
  await eventually(async () => (await add()).statusCode === 201, 5_000)
  await lag(100, 8)
  const refused = await add()
  t.equal(refused.statusCode, 503)
  t.match(refused.json(), { code: 'OVERLOADED', outcome: 'not_executed', detail: /event loop lags/ })
  t.equal(refused.headers['retry-after'], '1')
  t.equal((await app.http.inject('/jobs/q:x')).statusCode, 503)
  for (const url of ['/health/live', '/health/ready', '/stats']) {
    t.equal((await app.http.inject(url)).statusCode, 200, url)
  }
  await eventually(async () => (await add()).statusCode === 201, 5_000)
})

t.test('MAX_EVENT_LOOP_DELAY=0 disables the check', async (t) => {
  const app = await startApp(redis, { MAX_EVENT_LOOP_DELAY: '0' })
  t.teardown(() => app.http.close())
  await lag(100, 8)
  t.equal((await app.http.inject('/jobs/q:x')).statusCode, 404)
})
