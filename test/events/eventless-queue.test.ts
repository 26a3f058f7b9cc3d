/**
 * A queue whose producer keeps no events, or whose stream is damaged: its own workers get their jobs by short polls, and the
 * other queues do not notice.
 */
import { Queue, Worker } from 'bullmq'
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { connectionTo, post } from '../leases/client.ts'
import { startReceiver } from '../webhooks/endpoint.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

async function open(t: import('tap').Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  const queueOf = (name: string, keepsEvents = true) => {
    const streams = keepsEvents ? {} : { streams: { events: { maxLen: 0 } } }
    const queue = new Queue(name, { connection: connectionTo(redis), prefix: app.prefix, ...streams })
    t.teardown(() => queue.close())
    return queue
  }
  t.teardown(() => app.http.close())
  const take = (queue: string, wait: number) => post(app, `/queues/${queue}/leases`, { wait })
  const events = async () => (await app.http.inject('/stats')).json().events
  return { app, queueOf, take, events }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** How long a worker waited for each of `count` jobs, from when the job was added, in ms. */
async function wakeups(queue: Queue, take: (queue: string, wait: number) => Promise<unknown>, count: number) {
  const waits: number[] = []
  for (let index = 0; index < count; index++) {
    const waiting = take(queue.name, 10)
    await sleep(40 + ((index * 37) % 60))
    const began = performance.now()
    await queue.add('n', {})
    await waiting
    waits.push(performance.now() - began)
  }
  return waits.sort((a, b) => a - b)
}

t.test('workers of a queue without events get its jobs within a second, and it is reported', async (t) => {
  const { app, queueOf, take, events } = await open(t)
  const silent = queueOf('silent', false)
  const waits = await wakeups(silent, take, 5)
  t.ok(waits.at(-1)! < 1_000, `${waits.map(Math.round)} ms`)
  t.match(await events(), { eventless: 1, status: 'live' })
  const { recommendations } = (await app.http.inject('/health/redis')).json()
  t.match(recommendations.join(' '), /The queue silent keeps no events/)
  await silent.add('n', {}, { jobId: 'j' })
  t.match((await app.http.inject('/jobs/silent:j')).json(), { state: 'waiting' })
  await silent.remove('j')
  await sleep(1_100)
  t.equal((await app.http.inject('/jobs/silent:j')).statusCode, 404, 'a status is a second old at most')
})

t.test('a busy queue without events does not delay the others', async (t) => {
  const { queueOf, take, events } = await open(t)
  const silent = queueOf('silent', false)
  const other = queueOf('other')
  const waiting = take('silent', 10)
  let isOver = false
  const producer = (async () => {
    while (!isOver) {
      await silent.add('n', {}, { removeOnComplete: true })
      await sleep(4)
    }
  })()
  await waiting
  const keepsWaiting = (async () => {
    while (!isOver) await take('silent', 1)
  })()
  const waits = await wakeups(other, take, 30)
  isOver = true
  await Promise.all([producer, keepsWaiting])
  const p90 = waits[Math.floor(waits.length * 0.9)]!
  t.ok(p90 < 60, `p50 ${waits[15]!.toFixed(1)}, p90 ${p90.toFixed(1)}, max ${waits.at(-1)!.toFixed(1)} ms`)
  t.comment(`p50 ${waits[15]!.toFixed(1)}, p90 ${p90.toFixed(1)}, max ${waits.at(-1)!.toFixed(1)} ms`)
  t.match(await events(), { status: 'live', reason: null, resets: 0 })
})

t.test('a stream of another type is left out, and the others stay live', async (t) => {
  const { app, queueOf, take, events } = await open(t)
  const broken = queueOf('broken')
  const other = queueOf('other')
  await wakeups(broken, take, 1)
  await wakeups(other, take, 1)
  const states = new Set<string>()
  const waiting = take('other', 10)
  await client.multi().del(`${app.prefix}:broken:events`).set(`${app.prefix}:broken:events`, 'x').exec()
  for (let i = 0; i < 60; i++) {
    states.add((await events()).status)
    // Each entry ends the read that blocks, so that the next read meets the key.
    await client.xadd(`${app.prefix}:other:events`, '*', 'event', 'progress', 'jobId', 'x')
    await sleep(20)
  }
  t.same([...states], ['live'])
  await other.add('n', {})
  t.equal((await waiting).status, 200)
})

t.test(
  'with streams that cannot be read alone, another queue is live as soon as it is followed',
  async (t) => {
    const { app, queueOf, take, events } = await open(t)
    const silent = queueOf('silent', false)
    await wakeups(silent, take, 2)
    await eventually(async () => (await events()).eventless === 1)
    await sleep(2_500)
    t.match(await events(), { status: 'live' })
    const other = queueOf('other')
    await other.waitUntilReady()
    const waits = await wakeups(other, take, 3)
    t.ok(waits.at(-1)! < 500, `${waits.map(Math.round)} ms`)
    t.equal((await app.http.inject('/health')).statusCode, 200)
  },
)

t.test('entries that no producer of BullMQ writes reach their own listeners, if any', async (t) => {
  const { app, queueOf, take, events } = await open(t)
  const odd = queueOf('odd')
  await odd.waitUntilReady()
  const waiting = take('odd', 10)
  await sleep(100)
  const stream = `${app.prefix}:odd:events`
  await client.xadd(stream, '*', 'no', 'event')
  await client.xadd(stream, '*', 'event', '', 'jobId', '')
  await client.xadd(stream, '*', 'event', '__proto__', '__proto__', 'x', 'jobId', '__proto__')
  await client.xadd(stream, '*', 'event', 'delayed', 'jobId', 'a', 'delay', 'soon')
  await client.xadd(stream, '*', 'event', 'cleaned', 'count', 'many')
  await client.xadd(stream, '18446744073709551000-0', 'event', 'completed', 'jobId', 'a')
  await odd.add('n', {}, { jobId: 'j' })
  t.match((await waiting).body.jobs, [{ id: 'odd:j' }])
  t.match(await events(), { status: 'live', reason: null })
})

/** What is promised is a second; the machine of the test may be busy. */
const MAX_MS = 3_000

/** Adds a job, and trims the stream in the same step. */
const ADD = `
redis.call('HSET', KEYS[2], 'name', 'n', 'data', '{}', 'opts', '{}', 'timestamp', 1)
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[3], '*', 'event', 'waiting', 'jobId', ARGV[1])
redis.call('XTRIM', KEYS[3], 'MAXLEN', 0)
`

t.test('queues without events, worked by all kinds of workers, do not disturb the others', async (t) => {
  const { app, queueOf, take, events } = await open(t, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
  const { prefix } = app
  const names = ['one', 'two', 'pushed']
  const [one, two, pushed] = names.map((name) => queueOf(name, false)) as [Queue, Queue, Queue]
  const trimmed = queueOf('trimmed')
  const addAndTrim = (jobId: string) =>
    client
      .multi()
      .eval(ADD, 3, `${prefix}:trimmed:wait`, `${prefix}:trimmed:${jobId}`, `${prefix}:trimmed:events`, jobId)
      .exec()
  await trimmed.waitUntilReady()
  const other = queueOf('other')
  const { url, received } = await startReceiver(t)
  const payload = { url }
  await app.http.inject({ method: 'PUT', url: '/queues/pushed/subscription', payload })
  const native = new Worker('two', async () => 1, {
    connection: connectionTo(redis),
    prefix,
    concurrency: 2,
  })
  t.teardown(() => native.close())
  const statuses = new Set<string>()
  const timer = setInterval(() => void events().then(({ status }) => statuses.add(status)), 50)
  t.teardown(() => clearInterval(timer))
  const waits: Record<string, number[]> = { one: [], two: [], trimmed: [], other: [] }
  const adds: Record<string, (id: string) => Promise<unknown>> = {
    one: (jobId) => one.add('n', {}, { jobId }),
    two: (jobId) => two.add('n', {}, { jobId }),
    trimmed: addAndTrim,
    other: (jobId) => other.add('n', {}, { jobId }),
  }
  await Promise.all(
    Object.entries(adds).map(async ([name, add]) => {
      for (let i = 0; i < 6; i++) {
        const waiting = name === 'two' ? undefined : take(name, 10)
        await sleep(30 + ((i * 37) % 50))
        const began = performance.now()
        await add(`j${i}`)
        if (waiting) t.equal((await waiting).status, 200)
        else await eventually(async () => (await two.getCompletedCount()) === i + 1)
        waits[name]!.push(performance.now() - began)
      }
    }),
  )
  for (const name of ['one', 'trimmed'])
    t.ok(Math.max(...waits[name]!) < MAX_MS, `${name}: ${waits[name]} ms`)
  const began = performance.now()
  await pushed.add('n', {}, { jobId: 'p' })
  await eventually(() => received.length === 1)
  t.ok(performance.now() - began < MAX_MS, 'a webhook')
  t.notOk(statuses.has('degraded'))
  const { recommendations } = (await app.http.inject('/health/redis')).json()
  for (const name of ['one', 'trimmed', 'pushed'])
    t.match(recommendations.join(' '), `The queue ${name} keeps no events`)
})
