/** Secrets and header values in Redis and in the log: unreadable there, and of no use anywhere else. */
import { Writable } from 'node:stream'
import { Queue } from 'bullmq'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createApp } from '../../../src/app.ts'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import type { Subscription } from '../../../src/webhooks/subscriptions/subscription.ts'
import { eventually, startApp, type TestApp, testConfig, untilReady } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { startReceiver } from '../endpoint.ts'
import { sealOld } from '../old-seals.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const SECRET = 's'.repeat(40)
const SETTINGS = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', SECRET }

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, { ...SETTINGS, ...settings })
  t.teardown(() => app.http.close())
  return app
}

async function call(app: Pick<TestApp, 'http'>, method: 'GET' | 'PUT' | 'POST', path: string, body?: object) {
  const response = await app.http.inject({
    method,
    url: `/queues/${path}`,
    ...(body ? { headers: { 'content-type': 'application/json' }, payload: JSON.stringify(body) } : {}),
  })
  return { status: response.statusCode, body: response.json() }
}

function openQueue(t: Test, prefix: string, name: string): Queue {
  const queue = new Queue(name, { connection: { path: redis.socket }, prefix })
  t.teardown(() => queue.close())
  return queue
}

const stored = async (prefix: string, queue: string): Promise<Subscription> =>
  JSON.parse((await redis.client.hget(createKeyspace(prefix).subscription(queue), 'subscription'))!)

/** As an attacker with write access to Redis. */
async function write(prefix: string, subscription: Subscription): Promise<void> {
  const keyspace = createKeyspace(prefix)
  const { queue, revision } = subscription
  await redis.client.hset(keyspace.subscription(queue), {
    revision,
    subscription: JSON.stringify(subscription),
  })
  await redis.client.sadd(keyspace.subscriptions, queue)
  await redis.client.incr(keyspace.subscriptionsVersion)
}

t.test('sealed values that are copied or whose URL is changed in Redis are sent nowhere', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const app = await open(t, { QUEUE_PREFIX })
  const [receiver, evil] = [await startReceiver(t), await startReceiver(t)]
  const headers = { Authorization: 'Bearer x' }
  for (const queue of ['moved', 'victim', 'evil', 'healthy'])
    await call(app, 'PUT', `${queue}/subscription`, {
      url: queue === 'evil' ? evil.url : receiver.url,
      headers,
    })
  await app.http.close()
  const victim = await stored(QUEUE_PREFIX, 'victim')
  await write(QUEUE_PREFIX, { ...(await stored(QUEUE_PREFIX, 'moved')), url: evil.url })
  const { headers: sealedHeaders, secrets } = victim
  await write(QUEUE_PREFIX, { ...(await stored(QUEUE_PREFIX, 'evil')), headers: sealedHeaders, secrets })

  const next = await open(t, { QUEUE_PREFIX })
  for (const queue of ['moved', 'evil', 'healthy'])
    await openQueue(t, QUEUE_PREFIX, queue).add('n', {}, { jobId: 'j' })
  await eventually(() => receiver.received.length === 1)
  t.match(receiver.received, [{ job: { queue: 'healthy' }, headers: { authorization: 'Bearer x' } }])
  for (const queue of ['moved', 'evil']) {
    await eventually(async () => (await call(next, 'GET', `${queue}/subscription`)).body.problem !== null)
    t.match(
      (await call(next, 'GET', `${queue}/subscription`)).body.problem,
      /sealed .* for another queue or URL/,
    )
  }
  t.equal(evil.received.length, 0)
})

t.test('subscriptions of version 0.1.0 wait until the setting has them sealed again', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const receiver = await startReceiver(t)
  const app = await open(t, { QUEUE_PREFIX })
  const { secret } = (await call(app, 'PUT', 'q/subscription', { url: receiver.url })).body
  await app.http.close()
  const current = await stored(QUEUE_PREFIX, 'q')
  await write(QUEUE_PREFIX, {
    ...current,
    headers: { Authorization: sealOld(SECRET, 'Bearer x') },
    secrets: [{ ...current.secrets[0]!, sealed: sealOld(SECRET, secret) }],
  })
  await openQueue(t, QUEUE_PREFIX, 'q').add('n', {}, { jobId: 'j' })
  const refusing = await open(t, { QUEUE_PREFIX })
  await eventually(async () =>
    /WEBHOOK_OPEN_OLD_SEALS/.test((await call(refusing, 'GET', 'q/subscription')).body.problem),
  )
  t.equal(receiver.received.length, 0)
  await refusing.http.close()
  const opening = await open(t, { QUEUE_PREFIX, WEBHOOK_OPEN_OLD_SEALS: 'true' })
  await eventually(async () => /"v2\..*"v2\./.test(JSON.stringify(await stored(QUEUE_PREFIX, 'q'))))
  await opening.http.close()
  const next = await open(t, { QUEUE_PREFIX })
  await eventually(() => receiver.received.length >= 1)
  t.match(receiver.received[0]?.headers, { authorization: 'Bearer x' })
  t.equal((await call(next, 'GET', 'q/subscription')).body.problem, null)
})

t.test('neither Redis nor the log contains a secret or a header value', async (t) => {
  let log = ''
  const stream = new Writable({
    write(chunk, _encoding, done) {
      log += chunk
      done()
    },
  })
  const config = testConfig({ ...SETTINGS, LOG_REQUESTS: 'all' })
  const app = await createApp(config, { socket: redis.socket }, pino({ level: 'trace' }, stream))
  t.teardown(() => app.http.close())
  await app.http.ready()
  await untilReady(app)
  const receiver = await startReceiver(t)
  receiver.answer = () => ({ status: 500 })
  const body = { url: `${receiver.url}?token=hunter1`, headers: { Authorization: 'Bearer hunter2' } }
  const secrets = [(await call(app, 'PUT', 'q/subscription', body)).body.secret]
  secrets.push((await call(app, 'POST', 'q/subscription/secrets', {})).body.secret)
  await call(app, 'PUT', 'q/subscription', { ...body, secret: 'whsec_hunter3' })
  const queue = openQueue(t, config.QUEUE_PREFIX, 'q')
  await queue.add('n', {}, { jobId: 'j' })
  await eventually(async () => (await queue.getJob('j'))?.failedReason !== undefined)
  await call(app, 'PUT', 'q/subscription', { ...body, headers: { Authorization: 'Bearer hunter4\n' } })
  const keys = await redis.client.keys(`${config.QUEUE_PREFIX}*`)
  const dumps = await Promise.all(keys.map((key) => redis.client.dumpBuffer(key)))
  const inRedis = Buffer.concat(dumps.filter((dump) => dump !== null)).toString('latin1')
  t.ok(inRedis.includes('v2.'))
  for (const hidden of [
    'hunter2',
    'hunter3',
    'hunter4',
    SECRET,
    ...secrets.map((secret) => secret.slice(6, 40)),
  ]) {
    t.notOk(inRedis.includes(hidden), `${hidden} in Redis`)
    t.notOk(log.includes(hidden), `${hidden} in the log`)
  }
  t.match(log, 'subscription')
})
