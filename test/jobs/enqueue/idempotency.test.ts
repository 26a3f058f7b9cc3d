/** Idempotency-Key: repeating a request with its key returns the first job, in any state, and never creates a second. */
import { hash } from 'node:crypto'
import { stringify } from 'safe-stable-stringify'
import t, { type Test } from 'tap'
import { startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis, type TestRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

async function open(t: Test, settings: Record<string, string> = {}, at: TestRedis = redis) {
  const app = await startApp(at, settings)
  t.teardown(() => app.http.close())
  return app
}

const post = (app: TestApp, body: object, key?: string, url?: string) =>
  postText(app, JSON.stringify(body), key, url)

async function postText(app: TestApp, payload: string, key?: string, url = '/jobs') {
  const headers = {
    'content-type': 'application/json',
    ...(key === undefined ? {} : { 'idempotency-key': key }),
  }
  const response = await app.http.inject({ method: 'POST', url, headers, payload })
  return { status: response.statusCode, headers: response.headers, body: response.json() }
}

const job = { queue: 'q', name: 'welcome', data: { to: 'ann', n: 1 }, opts: { attempts: 3 } }
const jobsIn = (app: TestApp) => redis.client.llen(`${app.prefix}:q:wait`)

t.test('a repeat returns the first job, and is marked as a replay', async (t) => {
  const app = await open(t)
  const first = await post(app, job, 'k1')
  t.match(first, { status: 201, body: { deduplicated: false, state: 'waiting' } })
  t.equal(first.headers['idempotency-replayed'], undefined)
  const again = await post(app, job, 'k1')
  t.match(again, { status: 200, body: { ...first.body, deduplicated: true } })
  t.equal(again.headers['idempotency-replayed'], 'true')
  t.equal(again.headers.location, first.headers.location)
  t.equal(await jobsIn(app), 1)
  t.equal((await post(app, job, 'k2')).status, 201, 'another key creates another job')
  t.equal((await post(app, job)).status, 201, 'and so does a request without a key')
})

t.test('the order of fields and omitted defaults do not change the payload', async (t) => {
  const app = await open(t)
  const { body } = await post(app, job, 'k')
  const turned = { opts: { attempts: 3 }, data: { n: 1, to: 'ann' }, name: 'welcome', queue: 'q' }
  t.match(await post(app, turned, 'k'), { status: 200, body: { id: body.id } })
  const plain = await post(app, { name: 'n' }, 'plain')
  const spelt = await post(app, { queue: 'default', name: 'n', data: {}, opts: {} }, 'plain')
  t.match(spelt, { status: 200, body: { id: plain.body.id } })
})

const withData = (data: string) => `{"queue":"q","name":"n","data":${data},"opts":{"attempts":3}}`

t.test(
  'the payload is the text: numbers as they are spelled, in any order and with any white space',
  async (t) => {
    const app = await open(t)
    const same = [
      ['{"a":1,"b":[1.0,2]}', ' { "b" : [ 1.0,2 ],\n"a":1 } '],
      ['"\\u00e9/"', '"é\\/"'],
      ['1970670598291982290', '1970670598291982290'],
    ] as const
    for (const [index, [first, second]] of same.entries()) {
      const { status, body } = await postText(app, withData(first), `same-${index}`)
      t.equal(status, 201)
      t.match(
        await postText(app, withData(second), `same-${index}`),
        { status: 200, body: { id: body.id } },
        second,
      )
    }
    const different = [
      ['9007199254740993', '9007199254740992'],
      ['{"id":[1.0]}', '{"id":[1]}'],
      ['100', '1e2'],
      ['1e400', 'null'],
      ['-0', '0'],
      ['{"a":1,"a":2}', '{"a":2}'],
    ] as const
    for (const [index, pair] of different.entries()) {
      for (const [first, second] of [pair, [pair[1], pair[0]]] as const) {
        const key = `different-${index}-${first}`
        t.equal((await postText(app, withData(first), key)).status, 201)
        const refused = await postText(app, withData(second), key)
        t.match(
          refused,
          { status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } },
          `${first}, then ${second}`,
        )
        t.equal((await postText(app, withData(first), key)).status, 200)
      }
    }
  },
)

/** The record as version 0.1 writes it, up to the key of the job. */
const oldFingerprint = (payload: string) =>
  hash('sha256', stringify(JSON.parse(payload))!, 'base64url').slice(0, 22)

t.test('replicas of this version and of 0.1 share records', async (t) => {
  const app = await open(t)
  const payloads = [
    '{"b":1,"a":"x"}',
    '[1.0,1e2,-0,1e400,9007199254740993]',
    '{"a":1,"a":2}',
    '"\\u00e9\\/"',
  ].map(withData)
  for (const payload of payloads) {
    await redis.client.del(...(await redis.client.keys(`${app.prefix}::sluice:idempotency:*`)), 'none')
    const { body } = await postText(app, payload, 'k')
    const keys = await redis.client.keys(`${app.prefix}::sluice:idempotency:*`)
    const [shared, exact] = keys.sort()
    t.equal(exact, `${shared}:exact`)
    t.equal(await redis.client.get(shared!), oldFingerprint(payload) + body.id.slice(2), 'what 0.1 reads')
    // Without the exact fingerprint the record is what 0.1 writes.
    await redis.client.del(exact!)
    t.match(await postText(app, payload, 'k'), { status: 200, body: { id: body.id } }, payload)
    t.equal((await postText(app, withData('"other"'), 'k')).status, 422)
  }
})

t.test('a key with another payload is refused, and nothing is stored', async (t) => {
  const app = await open(t)
  await post(app, job, 'k')
  const others = [
    { ...job, name: 'other' },
    { ...job, data: { to: 'bob', n: 1 } },
    { ...job, data: { to: 'ann', n: '1' } },
    { ...job, opts: { attempts: 4 } },
    { ...job, queue: 'other' },
  ]
  for (const other of others) {
    const { status, body } = await post(app, other, 'k')
    t.match(
      { status, body },
      { status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED', outcome: 'not_executed' } },
    )
    t.notOk(body.ids, 'it names no job')
  }
  t.equal(await jobsIn(app), 1)
  t.equal(await redis.client.exists(`${app.prefix}:other:wait`), 0)
})

t.test('the record outlives the job, and a repeat reports that the job is gone', async (t) => {
  const app = await open(t)
  const first = await post(app, job, 'k')
  await redis.client.del(`${app.prefix}:${first.body.id}`)
  await redis.client.lpop(`${app.prefix}:q:wait`)
  t.match(await post(app, job, 'k'), {
    status: 200,
    body: { id: first.body.id, name: null, state: null, createdAt: null, deduplicated: true },
  })
  t.equal(await jobsIn(app), 0)
})

t.test('another replica, or the service after a restart, returns the same job', async (t) => {
  const app = await open(t)
  const first = await post(app, job, 'k')
  const replica = await open(t, { QUEUE_PREFIX: app.prefix })
  t.match(await post(replica, job, 'k'), { status: 200, body: { id: first.body.id } })
})

t.test('a hundred concurrent requests to two replicas create one job', async (t) => {
  const app = await open(t)
  const replica = await open(t, { QUEUE_PREFIX: app.prefix })
  const responses = await Promise.all(
    Array.from({ length: 100 }, (_, index) => post(index % 2 ? app : replica, job, 'k')),
  )
  t.equal(responses.filter(({ status }) => status === 201).length, 1)
  t.equal(new Set(responses.map(({ body }) => body.id)).size, 1)
  t.equal(await jobsIn(app), 1)
})

t.test('a key returns the existing job when its job was a duplicate', async (t) => {
  const app = await open(t)
  const named = { ...job, opts: { jobId: 'mine' } }
  const first = await post(app, named)
  t.match(await post(app, named, 'k'), { status: 200, body: { id: first.body.id } })
  t.match(await post(app, named, 'k'), { status: 200, headers: { 'idempotency-replayed': 'true' } })
  const throttled = { ...job, opts: { deduplication: { id: 'd' } } }
  const kept = await post(app, throttled)
  t.match(await post(app, throttled, 'd'), { status: 200, body: { id: kept.body.id } })
  t.match(await post(app, throttled, 'd'), { body: { id: kept.body.id } })
})

t.test('in a batch each job has its own key; the header applies to those without one', async (t) => {
  const app = await open(t)
  const batch = { jobs: [{ ...job, idempotencyKey: 'a' }, job, { ...job, idempotencyKey: 'a' }] }
  const first = await post(app, batch, 'b', '/jobs/batch')
  t.match(first, { status: 201, body: { created: 2, deduplicated: 1 } })
  const [one, two, three] = first.body.results
  t.equal(three.id, one.id, 'a key used twice in a batch creates one job')
  const again = await post(app, batch, 'b', '/jobs/batch')
  t.match(again, { status: 201, body: { created: 0, deduplicated: 3 } })
  t.equal(again.body.results[1].id, two.id)
  t.match(await post(app, job, 'a'), { status: 200, body: { id: one.id } }, 'a single request shares the key')
  const changed = { jobs: [{ ...job, name: 'x', idempotencyKey: 'a' }, { name: 'y' }] }
  t.match(await post(app, changed, undefined, '/jobs/batch'), {
    status: 207,
    body: { results: [{ status: 422, error: { code: 'IDEMPOTENCY_KEY_REUSED' } }, { status: 201 }] },
  })
})

t.test('a record expires after IDEMPOTENCY_TTL, under a Redis key that no queue can have', async (t) => {
  const app = await open(t, { IDEMPOTENCY_TTL: '60000' })
  await post(app, job, 'k')
  const keys = await redis.client.keys(`${app.prefix}::sluice:idempotency:*`)
  t.equal(keys.length, 2)
  for (const key of keys) {
    const ttl = await redis.client.pttl(key)
    t.ok(ttl > 55_000 && ttl <= 60_000, `${ttl}`)
  }
  await redis.client.del(...keys)
  t.equal((await post(app, job, 'k')).status, 201)
})

t.test('a job that could not be stored leaves no record', async (t) => {
  const app = await open(t)
  await redis.client.set(`${app.prefix}:q:wait`, 'not a list')
  t.match(await post(app, job, 'k'), { status: 503, body: { code: 'QUEUE_DAMAGED' } })
  await redis.client.del(`${app.prefix}:q:wait`)
  t.equal((await post(app, job, 'k')).status, 201)
})

t.test('an invalid key is refused before anything is stored', async (t) => {
  const app = await open(t)
  for (const key of ['', 'with space', 'x'.repeat(256), 'tab\tin it', 'ümlaut']) {
    const { status, body } = await post(app, job, key)
    t.match(
      { status, body },
      {
        status: 400,
        body: {
          errors: [
            {
              pointer: 'Idempotency-Key',
              detail: 'is not a valid key; send 1 to 255 visible ASCII characters, without spaces',
            },
          ],
        },
      },
      key,
    )
  }
  t.equal((await post(app, job, `"${'x'.repeat(253)}"`)).status, 201)
  const item = { jobs: [{ ...job, idempotencyKey: 'with space' }] }
  t.equal((await post(app, item, undefined, '/jobs/batch')).status, 422)
  t.equal(await jobsIn(app), 1)
})

t.test('a repeat with a wait waits for the first job', async (t) => {
  const app = await open(t)
  const first = await post(app, job, 'k')
  const again = await post(app, job, 'k', '/jobs?wait=1')
  t.match(again, { status: 200, body: { id: first.body.id, state: 'waiting', deduplicated: true } })
  t.equal(again.headers['idempotency-replayed'], 'true')
})
