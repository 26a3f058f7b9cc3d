/** The rate limit of a key: enforced, reported in every response, and without effect on other keys. */
import t from 'tap'
import type { TestApp } from '../helpers/app.ts'
import { startAppWithKeys } from '../helpers/keys.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const get = (app: TestApp, secret: string, url = '/jobs/q:missing') =>
  app.http.inject({ url, headers: { authorization: `Bearer ${secret}` } })

t.test('requests above the rate get 429 with Retry-After; other keys are not affected', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, {
    slow: { scopes: ['read'], rate: { max: 3, windowMs: 3_600_000 } },
    free: { scopes: ['read'] },
  })
  for (const remaining of [2, 1, 0]) {
    const { statusCode, headers } = await get(app, secrets.slow)
    t.equal(statusCode, 404)
    t.equal(headers['ratelimit-policy'], '"key";q=3;w=3600')
    t.match(headers['ratelimit'], new RegExp(`^"key";r=${remaining};t=3(600|599)$`))
  }
  const over = await get(app, secrets.slow)
  t.equal(over.statusCode, 429)
  t.match(over.json(), {
    code: 'RATE_LIMITED',
    retryable: true,
    outcome: 'not_executed',
    detail: /The API key slow may send 3/,
  })
  t.match(over.headers['retry-after'], /^3(600|599)$/)
  t.match(over.headers['ratelimit'], /^"key";r=0;/)
  const free = await get(app, secrets.free)
  t.equal(free.statusCode, 404)
  t.equal(free.headers['ratelimit'], undefined)
})

t.test('a new window starts a new count', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, {
    a: { scopes: ['read'], rate: { max: 1, windowMs: 200 } },
  })
  t.equal((await get(app, secrets.a)).statusCode, 404)
  t.equal((await get(app, secrets.a)).statusCode, 429)
  await new Promise((resolve) => setTimeout(resolve, 250))
  t.equal((await get(app, secrets.a)).statusCode, 404)
})

t.test('rate-limited requests send no command to Redis', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, {
    a: { scopes: ['read'], rate: { max: 1, windowMs: 3_600_000 } },
    ops: { scopes: ['manage'] },
  })
  const sent = async () => (await get(app, secrets.ops, '/stats')).json().commandsSent
  await get(app, secrets.a, '/jobs/q:one')
  const before = await sent()
  for (let round = 0; round < 20; round++) await get(app, secrets.a, '/jobs/q:two')
  t.same(await sent(), before)
  const { requestsByKey } = (await get(app, secrets.ops, '/stats')).json()
  t.same(requestsByKey, { a: 21, ops: 3 }, 'but they are counted')
})
