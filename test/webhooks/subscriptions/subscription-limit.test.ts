/** WEBHOOK_MAX_SUBSCRIPTIONS: what is refused at the limit, and what is read of more than that. */
import t, { type Test } from 'tap'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import { readSubscriptions } from '../../../src/redis/scripts/read-subscriptions.ts'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const url = 'http://127.0.0.1:9/'
const MAX = 20
const SETTINGS = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', WEBHOOK_MAX_SUBSCRIPTIONS: `${MAX}` }

async function open(t: Test, settings: Record<string, string>) {
  const app = await startApp(redis, { ...SETTINGS, ...settings })
  t.teardown(() => app.http.close())
  return app
}

async function put(app: TestApp, queue: string, body: object = {}) {
  const response = await app.http.inject({
    method: 'PUT',
    url: `/queues/${queue}/subscription`,
    headers: { 'content-type': 'application/json' },
    payload: JSON.stringify({ url, paused: true, ...body }),
  })
  return { status: response.statusCode, body: response.json() }
}

const stats = async (app: TestApp) => (await app.http.inject('/stats')).json().webhooks

t.test(
  'of twice as many subscriptions as there may be, half are refused, counted, and not stored',
  async (t) => {
    const app = await open(t, {})
    const results = []
    for (let i = 0; i < 2 * MAX; i++) results.push(await put(app, `q${i}`))
    t.same(
      results.map(({ status }) => status),
      [...Array(MAX).fill(201), ...Array(MAX).fill(409)],
    )
    t.match(results.at(-1)?.body, {
      code: 'TOO_MANY_SUBSCRIPTIONS',
      detail: /^20 subscriptions exist.*Delete one.*WEBHOOK_MAX_SUBSCRIPTIONS/,
      outcome: 'not_executed',
    })
    t.match(await stats(app), { subscriptions: MAX, refused: MAX })
    const { subscription, subscriptions } = createKeyspace(app.prefix)
    t.equal(await redis.client.scard(subscriptions), MAX)
    t.equal(await redis.client.exists(subscription(`q${MAX}`)), 0)
    t.equal((await put(app, 'q0')).status, 200, 'an existing one can be changed')
    await app.http.inject({ method: 'DELETE', url: '/queues/q0/subscription' })
    t.equal((await put(app, 'new')).status, 201, 'one that was deleted makes room')
  },
)

t.test('of twice as many subscriptions in Redis half are read, and health says so', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const first = await open(t, { QUEUE_PREFIX, WEBHOOK_MAX_SUBSCRIPTIONS: '1000' })
  for (let i = 0; i < 2 * MAX; i++) t.equal((await put(first, `q${i}`)).status, 201)
  const app = await open(t, { QUEUE_PREFIX })
  await eventually(async () => (await stats(app)).subscriptions === MAX)
  const { recommendations } = (await app.http.inject('/health/redis')).json()
  t.match(recommendations.join(), /Redis has more subscriptions than WEBHOOK_MAX_SUBSCRIPTIONS/)
})

t.test('large subscriptions are read in several commands of bounded size', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const keyspace = createKeyspace(QUEUE_PREFIX)
  const queues = Array.from({ length: 40 }, (_, i) => `q${i}`)
  for (const queue of queues) {
    const json = JSON.stringify({ padding: 'x'.repeat(100_000) })
    await redis.client.hset(keyspace.subscription(queue), { revision: 'r1', subscription: json })
    await redis.client.sadd(keyspace.subscriptions, queue)
  }
  const page = await readSubscriptions(redis.client, keyspace, queues)
  t.ok(page.length >= 10 && page.length <= 12, `${page.length} of 40`)
  const app = await open(t, { QUEUE_PREFIX, WEBHOOK_MAX_SUBSCRIPTIONS: '100' })
  await eventually(async () => (await stats(app)).malformed === 40)
})

t.test('the headers of a subscription are bounded, and so are their names', async (t) => {
  const app = await open(t, {})
  const headers = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`x-${i}`, 'x'.repeat(500)]))
  t.match(await put(app, 'q', { headers }), {
    status: 422,
    body: { errors: [{ pointer: '/headers', detail: /at most 8192 bytes/ }] },
  })
  for (const name of ["it's", 'a`b', 'a b', 'a:b', 'a\r\nb'])
    t.match(
      await put(app, 'q', { headers: { [name]: '1' } }),
      { status: 422, body: { code: 'INVALID_OPTION' } },
      name,
    )
  for (const value of ['a\r\nx: y', 'a\n', 'a\u0000', 'é'])
    t.equal((await put(app, 'q', { headers: { 'x-a': value } })).status, 422, JSON.stringify(value))
  for (const name of [
    'Host',
    'content-length',
    'Transfer-Encoding',
    'connection',
    'webhook-signature',
    'Expect',
  ])
    t.equal((await put(app, 'q', { headers: { [name]: '1' } })).status, 422, name)
})
