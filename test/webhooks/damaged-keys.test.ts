/**
 * A key of this service that something else wrote, of each kind that webhooks read: it is named where an operator looks, or
 * does no harm. A healthy queue is beside it in every test.
 */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { SluiceError } from '../../src/errors.ts'
import { createKeyspace } from '../../src/redis/keyspace.ts'
import { createTakeError } from '../../src/webhooks/delivery/take-error.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'
import { startReceiver } from './endpoint.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

async function open(t: Test) {
  const QUEUE_PREFIX = uniquePrefix()
  const settings = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', SECRET: 's'.repeat(40), QUEUE_PREFIX }
  const receiver = await startReceiver(t)
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())

  async function call(method: 'GET' | 'PUT' | 'POST' | 'DELETE', url: string, body?: object) {
    const headers = { 'content-type': 'application/json' }
    const payload = body && { headers, payload: JSON.stringify(body) }
    const response = await app.http.inject({ method, url, ...payload })
    return { status: response.statusCode, body: response.body === '' ? undefined : response.json() }
  }
  const subscribe = (queue: string, concurrency = 10) =>
    call('PUT', `/queues/${queue}/subscription`, { url: receiver.url, concurrency })
  await subscribe('bad')
  await subscribe('healthy')
  const queueOf = (name: string) => {
    const queue = new Queue(name, { connection: { path: redis.socket }, prefix: QUEUE_PREFIX })
    t.teardown(() => queue.close())
    return queue
  }
  return {
    keyspace: createKeyspace(QUEUE_PREFIX),
    receiver,
    call,
    subscribe,
    bad: queueOf('bad'),
    healthy: queueOf('healthy'),
    advice: async () => (await call('GET', '/health/redis')).body.recommendations.join('\n') as string,
    problem: async () => (await call('GET', '/queues/bad/subscription')).body.problem as string | null,
    restart: () => startApp(redis, settings),
  }
}

const wrongTypes: Record<string, (key: string) => Promise<unknown>> = {
  'a string': (key) => client.set(key, 'x'),
  'a list': (key) => client.lpush(key, 'x'),
  'a hash': (key) => client.hset(key, 'x', 1),
  'a set': (key) => client.sadd(key, 'x'),
  'a stream': (key) => client.xadd(key, '*', 'x', '1'),
}

for (const [form, damage] of Object.entries(wrongTypes)) {
  t.test(`${form} where deliveries are counted is reported by name, until it is deleted`, async (t) => {
    const { keyspace, receiver, bad, healthy, advice, problem } = await open(t)
    const key = keyspace.deliveries('bad')
    // The worker waits for jobs by now, and notices the damage with the next one.
    await bad.add('n', {}, { jobId: 'before' })
    await eventually(async () => (await bad.getCompletedCount()) === 1)
    await client.del(key)
    await damage(key)
    await bad.add('n', {}, { jobId: 'j' })
    await healthy.add('n', {}, { jobId: 'j' })
    await eventually(async () => (await healthy.getCompletedCount()) === 1)
    const text = new RegExp(`takes no jobs: The Redis key ${key}, which counts .* Operator: delete it`)
    await eventually(async () => text.test(`${await problem()}`))
    t.match(await advice(), text)
    t.notMatch(await advice(), 'healthy')
    t.equal(receiver.received.length, 2)
    await client.del(key)
    await eventually(async () => (await bad.getCompletedCount()) === 2)
    await eventually(async () => (await problem()) === null)
  })
}

t.test('a delivery in flight is settled once, whatever becomes of the count', async (t) => {
  const { keyspace, receiver, bad, problem } = await open(t)
  receiver.answer = () => ({ afterMs: 200 })
  await bad.add('n', {}, { jobId: 'j' })
  await eventually(() => receiver.received.length === 1)
  await client.del(keyspace.deliveries('bad'))
  await client.set(keyspace.deliveries('bad'), 'x')
  await eventually(async () => (await bad.getCompletedCount()) === 1, 3_000)
  await bad.add('n', {}, { jobId: 'next' })
  await eventually(async () => /takes no jobs/.test(`${await problem()}`))
  t.equal(receiver.received.length, 1)
})

t.test('a pull worker takes jobs of the queue while its deliveries cannot be counted', async (t) => {
  const { keyspace, call, bad, problem } = await open(t)
  await client.set(keyspace.deliveries('bad'), 'x')
  await bad.add('n', {}, { jobId: 'j1' })
  await eventually(async () => (await problem()) !== null)
  t.match(await call('POST', '/queues/bad/leases', {}), { status: 200 })
  const pulling = call('POST', '/queues/bad/leases', { wait: 10 })
  await bad.add('n', {}, { jobId: 'j2' })
  t.match(await pulling, { status: 200 })
})

t.test('a count that no lease can have ended is not kept', async (t) => {
  const { keyspace, receiver, subscribe, bad } = await open(t)
  await subscribe('bad', 2)
  const key = keyspace.deliveries('bad')
  await client.zadd(key, '+inf', 'foreign', Date.now() + 86_400_000, 'from-another-clock', -5, 'old')
  await bad.add('n', {}, { jobId: 'j' })
  await eventually(() => receiver.received.length === 1)
  await eventually(async () => (await client.zcard(key)) === 0)
})

t.test(
  'the list of subscriptions with a wrong type is reported by name, and nothing is half written',
  async (t) => {
    const { keyspace, receiver, call, subscribe, bad, restart } = await open(t)
    const [key, record] = [keyspace.subscriptions, keyspace.subscription('bad')]
    await client.del(key)
    await client.set(key, 'x')
    const stored = await client.hgetall(record)
    for (const response of [
      await subscribe('bad'),
      await subscribe('new'),
      await call('DELETE', '/queues/bad/subscription'),
    ]) {
      t.match(response, { status: 503, body: { code: 'QUEUE_DAMAGED', outcome: 'not_executed' } })
      t.match(response.body.detail, `The Redis key ${key}, which lists`)
    }
    t.same(await client.hgetall(record), stored)
    t.equal(await client.exists(keyspace.subscription('new')), 0)
    await bad.add('n', {}, { jobId: 'j' })
    await eventually(() => receiver.received.length === 1)
    const next = await restart()
    t.teardown(() => next.http.close())
    const advice = async () => (await next.http.inject('/health/redis')).json().recommendations.join()
    await eventually(async () => (await advice()).includes(`The Redis key ${key}, which lists`))
  },
)

for (const [form, damage] of Object.entries(wrongTypes)) {
  t.test(`${form} where checks for stalled jobs are noted does not end the checks`, async (t) => {
    const { keyspace, receiver, subscribe } = await open(t)
    await damage(keyspace.stalledCheck('lost'))
    // Leased by a worker that ended without a trace.
    await client.hset(keyspace.job('lost', 'j'), { name: 'n', data: '{}', opts: '{}', timestamp: 1, ats: 1 })
    await client.lpush(`${keyspace.queueBase('lost')}active`, 'j')
    await subscribe('lost')
    await eventually(() => receiver.received.length === 1, 15_000)
  })
}

t.test('a damaged key of BullMQ is reported although the worker was waiting for jobs', async (t) => {
  const { keyspace, call, bad, healthy, receiver, problem } = await open(t)
  await bad.add('n', {}, { jobId: 'j' })
  await eventually(async () => (await bad.getCompletedCount()) === 1)
  const pulling = call('POST', '/queues/bad/leases', { wait: 20 })
  const wait = `${keyspace.queueBase('bad')}wait`
  await client.del(wait)
  await client.set(wait, 'x')
  await client.xadd(keyspace.eventStream('bad'), '*', 'event', 'waiting', 'jobId', 'x')
  await eventually(async () => /takes no jobs: A Redis key of this queue/.test(`${await problem()}`))
  t.match(await pulling, { status: 503, body: { code: 'QUEUE_DAMAGED' } })
  await healthy.add('n', {}, { jobId: 'j' })
  await eventually(() => receiver.received.length === 2)
})

t.test('the error of takes is logged when it begins, and ends with the failures', async (t) => {
  const lines: object[] = []
  let nowMs = 0
  let changed = 0
  const takeError = createTakeError('q', {
    onChanged: () => changed++,
    log: { error: (line: object) => lines.push(line) } as never,
    now: () => nowMs,
  })
  const fail = async (error: SluiceError) => {
    await takeError.watch(Promise.reject(error)).catch(() => {})
  }
  const damaged = new SluiceError('QUEUE_DAMAGED', { detail: 'The key k is damaged.' })
  for (let i = 0; i < 3; i++) await fail(damaged)
  t.same(lines, [{ queue: 'q', reason: 'The key k is damaged' }])
  t.equal(changed, 3)
  t.equal(takeError.text(), 'The key k is damaged')
  nowMs += 10_000
  t.equal(takeError.text(), undefined, 'the take that followed waits for jobs')
  await fail(damaged)
  t.equal(lines.length, 2)
  await fail(new SluiceError('REDIS_UNAVAILABLE'))
  t.equal(takeError.text(), undefined)
})
