/** The jobs of a queue are delivered to the endpoint of its subscription, and its response settles them. */
import { Queue } from 'bullmq'
import { Webhook } from 'standardwebhooks'
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { startReceiver } from '../endpoint.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', ...settings })
  const queue = new Queue('q', { connection, prefix: app.prefix })
  const receiver = await startReceiver(t)
  t.teardown(async () => {
    await queue.close()
    await app.http.close()
  })
  return { app, queue, receiver }
}

async function call(app: TestApp, method: 'GET' | 'PUT' | 'POST' | 'DELETE', path = '', body?: object) {
  const response = await app.http.inject({
    method,
    url: `/queues/q/subscription${path}`,
    ...(body ? { headers: { 'content-type': 'application/json' }, payload: JSON.stringify(body) } : {}),
  })
  return { status: response.statusCode, body: response.statusCode === 204 ? undefined : response.json() }
}

const stateOf = async (queue: Queue, key: string) => (await queue.getJob(key))?.getState()

t.test('a job is delivered, signed, and completes with the JSON of the response', async (t) => {
  const { app, queue, receiver } = await open(t)
  receiver.answer = () => ({ body: '{"sent":true}', headers: { 'content-type': 'application/json' } })
  const made = await call(app, 'PUT', '', { url: receiver.url, headers: { Authorization: 'Bearer x' } })
  t.match(made, {
    status: 201,
    body: { concurrency: 10, timeoutMs: 15_000, paused: null, secret: /^whsec_/ },
  })
  await queue.add(
    'n',
    { a: 1 },
    { jobId: 'j', attempts: 2, telemetry: { metadata: '{"traceparent":"00-a-b-01"}' } },
  )
  await eventually(async () => (await stateOf(queue, 'j')) === 'completed')
  const [got] = receiver.received
  t.match(got, {
    job: { id: 'q:j', queue: 'q', name: 'n', attempt: 1, attempts: 2, data: { a: 1 } },
    headers: { authorization: 'Bearer x', traceparent: '00-a-b-01', 'content-type': 'application/json' },
  })
  t.same(new Webhook(made.body.secret).verify(got!.body, got!.headers as Record<string, string>), got!.job)
  const job = await queue.getJob('j')
  t.match(job, { returnvalue: { sent: true }, processedBy: 'webhook', attemptsMade: 1 })
  t.same((await queue.getJobLogs('j')).logs, [], 'a first success explains itself')
  const shown = await call(app, 'GET')
  t.match(shown.body, {
    url: receiver.url,
    headers: ['Authorization'],
    secrets: [{ expiresAt: null }],
    deliveries: { delivered: 1, inFlight: 0, lastStatus: 200 },
  })
  t.notMatch(JSON.stringify(shown.body), /whsec_|Bearer/, 'secrets are shown only once')
  const stored = JSON.stringify(await redis.client.hgetall(`${app.prefix}::sluice:subscription:q`))
  for (const secret of ['whsec_', 'Bearer', made.body.secret.slice(8, 30)])
    t.notOk(stored.includes(secret), 'secrets are not readable in Redis')
})

t.test(
  'data and results pass through as bytes: exact, also large ones and ones that are not JSON',
  async (t) => {
    const { app, queue, receiver } = await open(t)
    const exact = '{"id":1970670598291982290,"a":[-0,1e400,1.50],"a":"\\u00e9é😀","10":1,"9":2}'
    const large = `[${Array.from({ length: 5_000 }, () => exact).join()}]`
    const stored: Record<string, [data: string | Buffer, sent: string]> = {
      exact: [exact, exact],
      large: [large, large],
      text: ['not "JSON"', '"not \\"JSON\\""'],
      binary: [Buffer.from([0xff]), '"\ufffd"'],
    }
    // A response of that size is not stored.
    const resultOf = (name: string) => (name === 'large' ? exact : stored[name]![1])
    receiver.answer = ({ job }) => ({
      body: ` \n${resultOf(job.name).replaceAll(',', ' ,\r\n')}`,
      headers: { 'content-type': 'application/json' },
    })
    await queue.pause()
    for (const [name, [data]] of Object.entries(stored)) {
      await queue.add(name, {}, { jobId: name })
      await redis.client.hset(`${app.prefix}:q:${name}`, 'data', data)
    }
    const { secret } = (await call(app, 'PUT', '', { url: receiver.url })).body
    await queue.resume()
    for (const [name, [, sent]] of Object.entries(stored)) {
      // A native reader of the job would fail to parse its data.
      await eventually(async () => (await redis.client.zscore(`${app.prefix}:q:completed`, name)) !== null)
      const { body, headers } = receiver.received.find(({ job }) => job.name === name)!
      t.ok(body.endsWith(`,"data":${sent}}`), name)
      t.ok(
        new Webhook(secret).verify(body, headers as Record<string, string>),
        'the signature is that of the bytes',
      )
      t.equal(await redis.client.hget(`${app.prefix}:q:${name}`, 'returnvalue'), resultOf(name))
    }
  },
)

t.test('5xx and 429 are retried after the backoff or Retry-After; 4xx and 3xx are final', async (t) => {
  const { app, queue, receiver } = await open(t)
  const answers: Record<string, object[]> = {
    backoff: [{ status: 500 }, { status: 200 }],
    later: [{ status: 429, headers: { 'retry-after': '1' } }, {}],
    bad: [{ status: 422, body: 'no such user', headers: { 'content-type': 'text/plain' } }],
    moved: [{ status: 302, headers: { location: '/other' } }],
    used: [{ status: 503 }, { status: 503 }],
  }
  receiver.answer = ({ job }) => answers[job.name]?.shift() ?? {}
  await call(app, 'PUT', '', { url: receiver.url, concurrency: 1 })
  for (const name of Object.keys(answers)) {
    const [opts, jobId] = [{ attempts: 2, backoff: { type: 'fixed', delay: 20 } }, name]
    await queue.add(name, {}, { ...opts, jobId })
    await eventually(async () => /completed|failed/.test(`${await stateOf(queue, jobId)}`))
  }
  const attempts = (name: string) => receiver.received.filter(({ job }) => job.name === name)
  t.equal(await stateOf(queue, 'backoff'), 'completed')
  const { logs } = await queue.getJobLogs('backoff')
  t.match(logs, [/webhook attempt 1: answered 500 in \d+ ms$/, /attempt 2: answered 200 in \d+ ms$/])
  t.same(
    attempts('backoff').map(({ job }) => job.attempt),
    [1, 2],
  )
  t.equal(attempts('backoff')[0]!.headers['webhook-id'], attempts('backoff')[1]!.headers['webhook-id'])
  t.equal(attempts('later').length, 2)
  t.match(await queue.getJob('bad'), {
    failedReason: /^answered 422 in \d+ ms: no such user$/,
    attemptsMade: 1,
  })
  t.match(await queue.getJob('moved'), { failedReason: /302.*redirects are not followed/, attemptsMade: 1 })
  t.equal(attempts('moved').length, 1)
  t.match(await queue.getJob('used'), { failedReason: /answered 503/, attemptsMade: 2 })
  t.match((await queue.getJobLogs('used')).logs, [/attempt 1: answered 503/, /attempt 2: answered 503/])
})

t.test('410 pauses the subscription: the job is released, and PUT resumes it', async (t) => {
  const { app, queue, receiver } = await open(t)
  receiver.answer = () => ({ status: 410 })
  const { body } = await call(app, 'PUT', '', { url: receiver.url })
  await queue.add('n', {}, { jobId: 'j' })
  await eventually(async () => (await call(app, 'GET')).body.paused !== null)
  t.match((await call(app, 'GET')).body, { paused: { reason: /answered 410/ }, deliveries: null })
  await eventually(async () => (await stateOf(queue, 'j')) === 'waiting')
  t.match(
    (await app.http.inject('/health/redis')).json().recommendations.join(),
    /subscription of q is paused: answered 410/,
  )
  receiver.answer = () => ({})
  t.match(await call(app, 'PUT', '', { url: receiver.url }), {
    status: 200,
    body: { paused: null, secrets: body.secrets },
  })
  await eventually(async () => (await stateOf(queue, 'j')) === 'completed')
})

t.test(
  'a failing endpoint gets one job at a time, with pauses, and waiting jobs lose no attempt',
  async (t) => {
    const { app, queue, receiver } = await open(t)
    receiver.answer = () => ({ status: 500 })
    await call(app, 'PUT', '', { url: receiver.url, concurrency: 5 })
    await queue.addBulk(
      Array.from({ length: 40 }, (_, i) => ({ name: 'n', data: {}, opts: { jobId: `j${i}` } })),
    )
    await eventually(async () => (await call(app, 'GET')).body.deliveries.failing)
    const sent = receiver.received.length
    t.ok(sent < 15, `${sent} sent before the breaker opened`)
    t.match(
      (await app.http.inject('/health/redis')).json().recommendations.join(),
      /subscription of q fails: answered 500/,
    )
    t.ok((await queue.getWaitingCount()) >= 25)
    receiver.answer = () => ({})
    await eventually(async () => (await queue.getCompletedCount()) >= 25, 15_000)
    t.match((await call(app, 'GET')).body.deliveries, { failing: false, failuresInARow: 0 })
  },
)

t.test(
  'an endpoint that begins to fail gets no new jobs, although its worker was waiting for them',
  async (t) => {
    const { app, queue, receiver } = await open(t)
    receiver.answer = () => ({ status: 500, afterMs: 20 })
    await call(app, 'PUT', '', { url: receiver.url, concurrency: 50 })
    await queue.addBulk(Array.from({ length: 5 }, () => ({ name: 'n', data: {} })))
    await eventually(async () => (await call(app, 'GET')).body.deliveries.failing)
    const sent = receiver.received.length
    await queue.addBulk(Array.from({ length: 20 }, () => ({ name: 'n', data: {} })))
    await new Promise((resolve) => setTimeout(resolve, 300))
    t.ok(receiver.received.length <= sent + 1, `${receiver.received.length - sent} more`)
    t.equal(await queue.getWaitingCount(), 25 - receiver.received.length)
  },
)

t.test('both secrets sign while they overlap; with an overlap of 0 only the new one does', async (t) => {
  const { app, queue, receiver } = await open(t)
  const first = (await call(app, 'PUT', '', { url: receiver.url })).body.secret
  const rotated = await call(app, 'POST', '/secrets', { overlap: 60 })
  t.match(rotated, {
    status: 201,
    body: { secret: /^whsec_/, secrets: [{ expiresAt: null }, { expiresAt: /^20/ }] },
  })
  const send = async (jobId: string) => {
    await queue.add('n', {}, { jobId })
    await eventually(async () => (await stateOf(queue, jobId)) === 'completed')
    return receiver.received.at(-1)!
  }
  const isBy = (secret: string, { body, headers }: { body: string; headers: object }) => {
    try {
      return new Webhook(secret).verify(body, headers as Record<string, string>) !== undefined
    } catch {
      return false
    }
  }
  const both = await send('a')
  t.ok(isBy(first, both) && isBy(rotated.body.secret, both))
  const last = (await call(app, 'POST', '/secrets', { overlap: 0 })).body
  const alone = await send('b')
  t.ok(isBy(last.secret, alone))
  t.notOk(isBy(first, alone) || isBy(rotated.body.secret, alone))
  t.equal(last.secrets.length, 1)
  const given = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
  const put = await call(app, 'PUT', '', { url: receiver.url, secret: given })
  t.equal(put.body.secret, undefined, 'a secret chosen by the client is not returned')
  t.ok(isBy(given, await send('c')))
})

t.test('the concurrency holds for all replicas together, and a rate limit holds', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { app, queue, receiver } = await open(t, { QUEUE_PREFIX, REPLICAS: '2' })
  const other = await startApp(redis, { QUEUE_PREFIX, REPLICAS: '2', WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
  t.teardown(() => other.http.close())
  receiver.answer = () => ({ afterMs: 20 })
  await call(app, 'PUT', '', { url: receiver.url, concurrency: 3 })
  // Without this PUT, the other replica would load the subscription within a minute.
  await call(other, 'PUT', '', { url: receiver.url, concurrency: 3 })
  await queue.addBulk(
    Array.from({ length: 60 }, (_, i) => ({ name: 'n', data: {}, opts: { jobId: `j${i}` } })),
  )
  await eventually(async () => (await queue.getCompletedCount()) === 60, 20_000)
  t.equal(receiver.received.length, 60, 'each job once')
  t.ok(receiver.most() <= 3, `${receiver.most()} at once`)
  t.ok(receiver.connections() <= 6, 'connections are reused')
  await call(app, 'PUT', '', { url: receiver.url, concurrency: 50, rateLimit: { max: 5, duration: 1_000 } })
  await queue.addBulk(
    Array.from({ length: 12 }, (_, i) => ({ name: 'n', data: {}, opts: { jobId: `r${i}` } })),
  )
  const began = performance.now()
  await eventually(async () => (await queue.getCompletedCount()) === 72, 20_000)
  t.ok(performance.now() - began > 1_500, 'five per second')
})

t.test('a change made at one replica applies at the other with its next take', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { app, queue, receiver } = await open(t, { QUEUE_PREFIX })
  const old = await startReceiver(t)
  await call(app, 'PUT', '', { url: old.url })
  const other = await startApp(redis, { QUEUE_PREFIX, WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
  t.teardown(() => other.http.close())
  await eventually(async () => (await other.http.inject('/stats')).json().webhooks.subscriptions === 1)
  await call(app, 'PUT', '', { url: receiver.url })
  await queue.addBulk(
    Array.from({ length: 30 }, (_, i) => ({ name: 'n', data: {}, opts: { jobId: `j${i}` } })),
  )
  await eventually(async () => (await queue.getCompletedCount()) === 30)
  t.equal(old.received.length, 0)
  t.equal((await call(app, 'DELETE')).status, 204)
  t.match(await call(app, 'GET'), { status: 404, body: { code: 'SUBSCRIPTION_NOT_FOUND' } })
  await queue.add('n', {}, { jobId: 'last' })
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.equal(await stateOf(queue, 'last'), 'waiting')
  t.equal(receiver.received.length, 30)
})

t.test('on shutdown, deliveries that end are settled, and the others are released', async (t) => {
  const { app, queue, receiver } = await open(t, { SHUTDOWN_TIMEOUT: '2000' })
  receiver.answer = ({ job }) => ({ afterMs: job.name === 'slow' ? 5_000 : 300 })
  await call(app, 'PUT', '', { url: receiver.url })
  await queue.add('quick', {}, { jobId: 'quick' })
  await queue.add('slow', {}, { jobId: 'slow' })
  await eventually(() => receiver.received.length === 2)
  const began = performance.now()
  await app.http.close()
  t.ok(performance.now() - began < 3_000, `${Math.round(performance.now() - began)} ms`)
  t.equal(await stateOf(queue, 'quick'), 'completed')
  t.equal(await stateOf(queue, 'slow'), 'waiting')
})

t.test('a subscription survives a restart', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const SECRET = 's'.repeat(40)
  const { app, receiver } = await open(t, { QUEUE_PREFIX, SECRET })
  const { secret } = (await call(app, 'PUT', '', { url: receiver.url })).body
  await app.http.close()
  const next = await open(t, { QUEUE_PREFIX, SECRET: `${'n'.repeat(40)},${SECRET}` })
  await next.queue.add('n', {}, { jobId: 'j' })
  await eventually(async () => (await stateOf(next.queue, 'j')) === 'completed')
  const [got] = receiver.received
  t.ok(
    new Webhook(secret).verify(got!.body, got!.headers as Record<string, string>),
    'with the secret from before the restart',
  )
})

t.test('an invalid subscription is refused, and the error points at the field', async (t) => {
  const { app } = await open(t, { WEBHOOK_ALLOW_CIDRS: '' })
  const bad: [object, string][] = [
    [{ url: 'http://127.0.0.1/x' }, '/url'],
    [{ url: 'http://169.254.169.254/latest/meta-data' }, '/url'],
    [{ url: 'ftp://example.com' }, '/url'],
    [{ url: 'https://1.1.1.1/', secret: 'whsec_short' }, '/secret'],
    [{ url: 'https://1.1.1.1/', headers: { 'Webhook-Id': 'x' } }, '/headers/webhook-id'],
    [{ url: 'https://1.1.1.1/', headers: { A: '1', a: '2' } }, '/headers/a'],
    [{ url: 'https://1.1.1.1/', headers: { é: '1' } }, '/headers/é'],
  ]
  for (const [body, pointer] of bad) {
    t.match(await call(app, 'PUT', '', body), {
      status: 422,
      body: { code: 'INVALID_OPTION', errors: [{ pointer }] },
    })
  }
  t.equal((await call(app, 'PUT', '', { url: 'https://1.1.1.1/', concurrency: 0 })).status, 400)
  t.equal((await call(app, 'GET')).status, 404)
})

t.test('after SECRET was lost, health reports it, and a new PUT delivers with a new secret', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { app, receiver } = await open(t, { QUEUE_PREFIX, SECRET: 'o'.repeat(40) })
  const lost = (await call(app, 'PUT', '', { url: receiver.url })).body
  await app.http.close()
  const next = await open(t, { QUEUE_PREFIX, SECRET: 'n'.repeat(40) })
  await next.queue.add('n', {}, { jobId: 'j' })
  const advice = async () => (await next.app.http.inject('/health/redis')).json().recommendations.join()
  await eventually(async () =>
    /subscription of q sends nothing: its secrets were sealed/.test(await advice()),
  )
  t.equal(receiver.received.length, 0)
  const put = await call(next.app, 'PUT', '', { url: receiver.url })
  t.match(put, { status: 200, body: { secret: /^whsec_/, secrets: [{ expiresAt: null }] } })
  t.not(put.body.secret, lost.secret)
  await eventually(async () => (await stateOf(next.queue, 'j')) === 'completed')
  const [got] = receiver.received
  t.ok(new Webhook(put.body.secret).verify(got!.body, got!.headers as Record<string, string>))
  t.notMatch(await advice(), /subscription of q/)
})

t.test('a PUT while both SECRETs are set makes the old one unnecessary', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const [old, fresh] = ['o'.repeat(40), 'n'.repeat(40)]
  const { app, receiver } = await open(t, { QUEUE_PREFIX, SECRET: old })
  const { secret } = (await call(app, 'PUT', '', { url: receiver.url })).body
  await app.http.close()
  const both = await open(t, { QUEUE_PREFIX, SECRET: `${fresh},${old}` })
  t.equal((await call(both.app, 'PUT', '', { url: receiver.url })).body.secret, undefined)
  await both.app.http.close()
  const last = await open(t, { QUEUE_PREFIX, SECRET: fresh })
  await last.queue.add('n', {}, { jobId: 'j' })
  await eventually(async () => (await stateOf(last.queue, 'j')) === 'completed')
  const [got] = receiver.received
  t.ok(new Webhook(secret).verify(got!.body, got!.headers as Record<string, string>))
})

t.test('hundreds of subscriptions are loaded after a restart', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { app, receiver } = await open(t, {
    QUEUE_PREFIX,
    REDIS_MAX_CONCURRENT_OPS: '4',
    REDIS_MAX_WAITING: '20',
  })
  const COUNT = 300
  for (let i = 0; i < COUNT; i++) {
    const { statusCode } = await app.http.inject({
      method: 'PUT',
      url: `/queues/q${i}/subscription`,
      headers: { 'content-type': 'application/json' },
      payload: JSON.stringify({ url: receiver.url, paused: true }),
    })
    if (statusCode !== 201) t.fail(`q${i}: ${statusCode}`)
  }
  await app.http.close()
  const next = await open(t, { QUEUE_PREFIX, REDIS_MAX_CONCURRENT_OPS: '4', REDIS_MAX_WAITING: '20' })
  await eventually(async () => (await next.app.http.inject('/stats')).json().webhooks.subscriptions === COUNT)
})

t.test('a delivery worker without capacity keeps no job from an HTTP worker', async (t) => {
  const { app, queue, receiver } = await open(t, { WEBHOOK_MAX_IN_FLIGHT: '1' })
  receiver.answer = () => ({ afterMs: 3_000 })
  const put = (name: string) =>
    app.http.inject({
      method: 'PUT',
      url: `/queues/${name}/subscription`,
      headers: { 'content-type': 'application/json' },
      payload: JSON.stringify({ url: receiver.url }),
    })
  t.equal((await put('other')).statusCode, 201)
  const busy = new Queue('other', { connection, prefix: app.prefix })
  t.teardown(() => busy.close())
  await busy.add('n', {})
  await eventually(() => receiver.received.length === 1)
  t.equal((await put('q')).statusCode, 201)
  await queue.add('n', {}, { jobId: 'j' })
  await eventually(async () => (await app.http.inject('/stats')).json().waitingWorkers === 2)
  await new Promise((resolve) => setTimeout(resolve, 200))
  const pulled = await app.http.inject({
    method: 'POST',
    url: '/queues/q/leases',
    headers: { 'content-type': 'application/json' },
    payload: '{}',
  })
  t.equal(pulled.statusCode, 200)
  t.match(pulled.json().jobs, [{ id: 'q:j' }])
})

t.test('deliveries are counted since the start, across changes of a subscription', async (t) => {
  const { app, queue, receiver } = await open(t)
  for (const jobId of ['a', 'b']) {
    await call(app, 'PUT', '', { url: receiver.url })
    await queue.add('n', {}, { jobId })
    await eventually(async () => (await stateOf(queue, jobId)) === 'completed')
  }
  t.match((await app.http.inject('/stats')).json().webhooks, { subscriptions: 1, delivered: 2, inFlight: 0 })
  t.match((await call(app, 'GET')).body.deliveries, { delivered: 1 })
})

t.test('a job that must not be worked does not count against the concurrency', async (t) => {
  const { app, queue, receiver } = await open(t, { MAX_STALLED_COUNT: '0' })
  await queue.add('n', {}, { jobId: 'dead' })
  await redis.client.hset(`${app.prefix}:q:dead`, 'defa', 'it stalled too often')
  await call(app, 'PUT', '', { url: receiver.url, concurrency: 1 })
  await eventually(async () => (await stateOf(queue, 'dead')) === 'failed')
  await queue.add('n', {}, { jobId: 'next' })
  await eventually(async () => (await stateOf(queue, 'next')) === 'completed')
  t.equal(receiver.received.length, 1)
})
