/**
 * A record in Redis that is no subscription: it alone is not delivered, health and GET name what is wrong, and PUT and
 * DELETE work on it. Healthy subscriptions are beside it in every test.
 */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import type { Subscription } from '../../../src/webhooks/subscriptions/subscription.ts'
import { isMalformed, parseSubscription } from '../../../src/webhooks/subscriptions/subscription-record.ts'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startAppWithKeys } from '../../helpers/keys.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { startReceiver } from '../endpoint.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const SETTINGS = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', SECRET: 's'.repeat(40) }

const at = '2026-01-15T12:00:00.000Z'
const record: Subscription = {
  queue: 'bad',
  revision: 'r1',
  url: 'http://127.0.0.1:9/',
  concurrency: 10,
  timeoutMs: 1_000,
  rateLimit: null,
  headers: { authorization: 'v2.AAAA' },
  secrets: [{ id: '00000000', sealed: 'v2.AAAA', createdAt: at, expiresAt: null }],
  paused: null,
  createdAt: at,
  updatedAt: at,
}

/** Each form, as text of the record's JSON, with what is said about it. */
const wrongValues: Record<string, unknown[]> = {
  queue: [1, null, 'other'],
  revision: [1, null, '', 'r2', 'r'.repeat(101)],
  url: [
    1,
    null,
    '',
    'not a URL',
    'ftp://a.test/',
    'http://a:b@a.test/',
    `http://a.test/${'x'.repeat(2_100)}`,
  ],
  concurrency: ['10', null, 0, 1.5, -1, 1e18, {}],
  timeoutMs: ['1', null, 0, 1e12],
  rateLimit: [1, 'x', {}, { max: 0, duration: 1 }, { max: 1 }, []],
  headers: [1, null, 'x', { a: 1 }, { 'a\r\nb': 'x' }, { '': 'x' }],
  secrets: [
    1,
    null,
    {},
    [],
    [1],
    [{}],
    [{ ...record.secrets[0], sealed: 1 }],
    [{ ...record.secrets[0], expiresAt: 'x' }],
    [{ ...record.secrets[0], expiresAt: at }],
    Array(9).fill(record.secrets[0]),
  ],
  paused: [1, 'x', {}, { reason: 1, at }, { reason: 'x', at: 'yesterday' }],
  createdAt: [1, null, 'x'],
  updatedAt: [1, null, 'x'],
}

t.test('a record that is not a subscription is recognised, field by field', async (t) => {
  const parse = (json: string, revision = 'r1') => parseSubscription('bad', { revision, json })
  t.same(parse(JSON.stringify(record)), record)
  t.same(parse(JSON.stringify({ ...record, later: 'field' })), { ...record, later: 'field' })
  t.same(parse(JSON.stringify({ ...record, keyId: 'billing' })), { ...record, keyId: 'billing' })
  for (const keyId of [1, null, {}, 'x'.repeat(101)])
    t.match(parse(JSON.stringify({ ...record, keyId })), { problem: /keyId/ })
  for (const json of [
    '',
    '[]',
    '{',
    'null',
    '"x"',
    '1',
    'true',
    '{}',
    '[{}]',
    '[null]',
    '\u0000',
    `{"a":${'['.repeat(9_000)}`,
  ]) {
    const stored = parse(json)
    t.ok(stored && isMalformed(stored), json.slice(0, 20))
  }
  for (const [field, values] of Object.entries(wrongValues)) {
    const { [field as 'url']: _, ...lacking } = record
    for (const fields of [lacking, ...values.map((value) => ({ ...record, [field]: value }))]) {
      const stored = parse(JSON.stringify(fields))
      t.match(stored, { queue: 'bad', revision: 'r1', problem: field }, JSON.stringify(fields).slice(0, 400))
    }
  }
  t.match(parse(JSON.stringify(record), ''), { revision: '', problem: /revision/ })
  t.match(parse('{', 'é'), { revision: '*' }, 'a revision that cannot be sent back')
  t.equal(parseSubscription('bad', 'none'), undefined)
  t.notMatch(
    JSON.stringify(parse(JSON.stringify({ ...record, url: 'hunter2' }))),
    'hunter2',
    'values are not quoted',
  )
})

type Damage = (key: string) => Promise<unknown>
const field =
  (json: string, revision = 'r1'): Damage =>
  (key) =>
    redis.client.hset(key, { revision, subscription: json })

const damages: Record<string, Damage> = {
  'an array': field('[]'),
  'half an object': field('{'),
  null: field('null'),
  'a text': field('"x"'),
  'an empty object': field('{}'),
  'no JSON at all': (key) => redis.client.hset(key, { revision: 'r1' }),
  'no revision': (key) => redis.client.hset(key, { subscription: JSON.stringify(record) }),
  'another revision': field(JSON.stringify(record), 'r2'),
  'no known field': (key) => redis.client.hset(key, { foreign: 'x' }),
  'a wrong URL': field(JSON.stringify({ ...record, url: 'ftp://a.test/' })),
  'headers of a wrong type': field(JSON.stringify({ ...record, headers: { a: 1 } })),
  'more bytes than any record': field(JSON.stringify({ ...record, padding: 'x'.repeat(200_000) })),
  'a key of another type': (key) => redis.client.set(key, 'x'),
  'a list': (key) => redis.client.lpush(key, 'x'),
  'a revision that is not text': field('{', Buffer.from([0xff, 0xfe]).toString('latin1')),
}

async function call(
  app: TestApp,
  method: 'GET' | 'PUT' | 'POST' | 'DELETE',
  queue: string,
  path = '',
  body?: object,
) {
  const response = await app.http.inject({
    method,
    url: `/queues/${queue}/subscription${path}`,
    ...(body ? { headers: { 'content-type': 'application/json' }, payload: JSON.stringify(body) } : {}),
  })
  return { status: response.statusCode, body: response.statusCode === 204 ? undefined : response.json() }
}

function openQueue(t: Test, prefix: string, name: string): Queue {
  const queue = new Queue(name, { connection: { path: redis.socket }, prefix })
  t.teardown(() => queue.close())
  return queue
}

const recommendations = async (app: TestApp): Promise<string> =>
  (await app.http.inject('/health/redis')).json().recommendations.join('\n')

t.test('each malformed record alone is not delivered, and is replaced or removed over the API', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { subscription, subscriptions } = createKeyspace(QUEUE_PREFIX)
  const names = Object.keys(damages).map((_, index) => `bad${index}`)
  for (const [index, damage] of Object.values(damages).entries()) {
    await redis.client.sadd(subscriptions, names[index]!)
    await damage(subscription(names[index]!))
  }
  await redis.client.sadd(subscriptions, 'gone', 'no:queue', '')
  const receiver = await startReceiver(t)
  const app = await startApp(redis, { ...SETTINGS, QUEUE_PREFIX })
  t.teardown(() => app.http.close())
  for (const queue of ['healthy1', 'healthy2']) await call(app, 'PUT', queue, '', { url: receiver.url })
  const next = await startApp(redis, { ...SETTINGS, QUEUE_PREFIX })
  t.teardown(() => next.http.close())
  const stats = async () => (await next.http.inject('/stats')).json().webhooks
  await eventually(async () => (await stats()).malformed === names.length)
  t.match(await stats(), { subscriptions: 2, malformed: names.length })
  for (const queue of ['healthy1', 'healthy2'])
    await openQueue(t, QUEUE_PREFIX, queue).add('n', {}, { jobId: 'j' })
  await eventually(() => receiver.received.length === 2)

  const advice = await recommendations(next)
  for (const [index, form] of Object.keys(damages).entries()) {
    const name = names[index]!
    t.match(advice, new RegExp(`The subscription of ${name} sends nothing: it is malformed in Redis: `), form)
    const { status, body } = await call(next, 'GET', name)
    t.match({ status, code: body.code }, { status: 409, code: 'SUBSCRIPTION_MALFORMED' }, form)
    t.match(body.detail, /is malformed in Redis: .*Replace it with PUT, or remove it with DELETE/)
    t.match(await call(next, 'POST', name, '/secrets', {}), {
      status: 409,
      body: { code: 'SUBSCRIPTION_MALFORMED' },
    })
    if (index % 2 === 0) {
      t.match(
        await call(next, 'PUT', name, '', { url: receiver.url }),
        { status: 200, body: { secret: /^whsec_/, problem: null } },
        form,
      )
      await openQueue(t, QUEUE_PREFIX, name).add('n', {}, { jobId: 'j' })
      await eventually(() => receiver.received.some(({ job }) => job.queue === name))
    }
    t.equal((await call(next, 'DELETE', name)).status, 204, form)
    t.equal((await call(next, 'GET', name)).status, 404, form)
    t.equal((await call(next, 'PUT', name, '', { url: receiver.url })).status, 201, form)
  }
  t.equal((await call(next, 'GET', 'gone')).status, 404)
  t.match(await stats(), { subscriptions: names.length + 2, malformed: 0 })
  t.notMatch(await recommendations(next), 'malformed')
})

t.test('a record that is damaged while it is delivered stops its own worker only', async (t) => {
  for (const damage of [damages['an array']!, damages['no revision']!, damages['a list']!]) {
    const receiver = await startReceiver(t)
    const app = await startApp(redis, SETTINGS)
    t.teardown(() => app.http.close())
    for (const queue of ['bad', 'healthy']) await call(app, 'PUT', queue, '', { url: receiver.url })
    const key = createKeyspace(app.prefix).subscription('bad')
    await damage('damaged')
    await redis.client.rename('damaged', key)
    const [bad, healthy] = [openQueue(t, app.prefix, 'bad'), openQueue(t, app.prefix, 'healthy')]
    await bad.add('n', {}, { jobId: 'j' })
    await healthy.add('n', {}, { jobId: 'j' })
    await eventually(() => receiver.received.length === 1)
    t.equal(receiver.received[0]?.job.queue, 'healthy')
    await eventually(async () =>
      /subscription of bad sends nothing: it is malformed/.test(await recommendations(app)),
    )
    t.equal((await call(app, 'PUT', 'bad', '', { url: receiver.url })).status, 200)
    await eventually(async () => (await bad.getCompletedCount()) === 1)
  }
})

t.test('seals that do not open are a problem of their subscription only', async (t) => {
  const receiver = await startReceiver(t)
  const app = await startApp(redis, SETTINGS)
  t.teardown(() => app.http.close())
  await call(app, 'PUT', 'healthy', '', { url: receiver.url })
  const keyspace = createKeyspace(app.prefix)
  await redis.client.sadd(keyspace.subscriptions, 'bad')
  await field(JSON.stringify(record))(keyspace.subscription('bad'))
  await redis.client.incr(keyspace.subscriptionsVersion)
  const next = await startApp(redis, { ...SETTINGS, QUEUE_PREFIX: app.prefix })
  t.teardown(() => next.http.close())
  await eventually(async () => (await call(next, 'GET', 'bad')).body.problem !== null)
  t.match((await call(next, 'GET', 'bad')).body, {
    url: record.url,
    problem: /^sends nothing: its secrets were sealed/,
  })
  t.match(await recommendations(next), /subscription of bad sends nothing: its secrets were sealed/)
  t.equal((await call(next, 'GET', 'healthy')).body.problem, null)
})

t.test(
  'a counter or a set of the wrong type keeps no subscription that is known from being delivered',
  async (t) => {
    const receiver = await startReceiver(t)
    const app = await startApp(redis, SETTINGS)
    t.teardown(() => app.http.close())
    await call(app, 'PUT', 'q', '', { url: receiver.url })
    const { subscriptionsVersion, subscriptions } = createKeyspace(app.prefix)
    for (const value of ['x', 'list']) {
      await redis.client.del(subscriptionsVersion)
      if (value === 'list') await redis.client.lpush(subscriptionsVersion, 'x')
      else await redis.client.set(subscriptionsVersion, value)
      const next = await startApp(redis, { ...SETTINGS, QUEUE_PREFIX: app.prefix })
      t.teardown(() => next.http.close())
      await eventually(async () => (await next.http.inject('/stats')).json().webhooks.subscriptions === 1)
      t.equal((await call(next, 'PUT', 'q', '', { url: receiver.url })).status, 200)
      t.match(await redis.client.get(subscriptionsVersion), /^\d+$/)
    }
    await redis.client.del(subscriptions)
    await redis.client.set(subscriptions, 'x')
    const next = await startApp(redis, { ...SETTINGS, QUEUE_PREFIX: app.prefix })
    t.teardown(() => next.http.close())
    await eventually(async () => /The subscriptions cannot be read/.test(await recommendations(next)))
  },
)

t.test('a key sees the malformed subscriptions of its own queues only', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { subscription, subscriptions } = createKeyspace(QUEUE_PREFIX)
  for (const queue of ['mine', 'theirs']) {
    await redis.client.sadd(subscriptions, queue)
    await redis.client.hset(subscription(queue), { revision: 'r1', subscription: '[]' })
  }
  const grants = { own: { scopes: ['manage', 'work'] as ('manage' | 'work')[], queues: ['mine'] } }
  const { app, secrets } = await startAppWithKeys(t, redis, grants, { ...SETTINGS, QUEUE_PREFIX })
  const headers = { authorization: `Bearer ${secrets.own}` }
  const advice = async () =>
    (await app.http.inject({ url: '/health/redis', headers })).json().recommendations.join('\n')
  await eventually(async () => /subscription of mine sends nothing: it is malformed/.test(await advice()))
  t.notMatch(await advice(), 'theirs')
  const { statusCode } = await app.http.inject({ url: '/queues/theirs/subscription', headers })
  t.equal(statusCode, 404)
})
