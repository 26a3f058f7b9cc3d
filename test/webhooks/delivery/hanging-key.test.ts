/** The endpoints of one API key never respond, on many queues at once; the deliveries of another key arrive as before. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import type { Scope } from '../../../src/auth/access.ts'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startAppWithKeys } from '../../helpers/keys.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { type Receiver, startReceiver } from '../endpoint.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

/** More hanging queues than slots: even one delivery of each would fill them all. */
const HANGING_QUEUES = 300
const SLOTS = 200
/** No hanging delivery ends during the test. */
const HANGING_TIMEOUT_MS = 120_000
/** Far less than that, and enough for a busy machine. */
const LATE_MS = 3_000
const GRANTS = {
  slow: { scopes: ['work', 'enqueue'] },
  quick: { scopes: ['work', 'enqueue', 'manage'] },
} as const
const SETTINGS = {
  WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8',
  WEBHOOK_MAX_IN_FLIGHT: `${SLOTS}`,
  SHUTDOWN_TIMEOUT: '1000',
  SECRET: 's'.repeat(40),
}

type Key = keyof typeof GRANTS

async function open(t: Test) {
  const QUEUE_PREFIX = uniquePrefix()
  const grants = GRANTS as unknown as Record<Key, { scopes: Scope[] }>
  const { app, secrets, path } = await startAppWithKeys(t, redis, grants, { ...SETTINGS, QUEUE_PREFIX })
  const receiver = await startReceiver(t)
  const hangingUrl = await startHangingEndpoint(t)

  async function call(to: TestApp, key: Key, method: 'PUT' | 'POST' | 'GET', url: string, body: object) {
    const headers = { authorization: `Bearer ${secrets[key]}`, 'content-type': 'application/json' }
    const response = await to.http.inject({ method, url, headers, payload: JSON.stringify(body) })
    if (response.statusCode > 201) throw new Error(response.body)
    return response.json()
  }

  /** Jobs for all slots wait at a few queues alone. */
  async function hang(): Promise<void> {
    for (let i = 0; i < HANGING_QUEUES; i++) {
      const name = `h${i}`
      await call(app, 'slow', 'PUT', `/queues/${name}/subscription`, {
        url: hangingUrl,
        concurrency: 100,
        timeoutMs: HANGING_TIMEOUT_MS,
      })
      const jobs = Array.from({ length: i < 5 ? 100 : 5 }, () => ({ name: 'n', data: {} }))
      await new Queue(name, { connection: redis.client, prefix: QUEUE_PREFIX }).addBulk(jobs)
    }
  }

  const subscribeQuick = () => call(app, 'quick', 'PUT', '/queues/quick/subscription', { url: receiver.url })
  const inFlight = async (of: TestApp = app): Promise<number> =>
    (await call(of, 'quick', 'GET', '/stats', {})).webhooks.inFlight

  /** Resolves with the time from each request to the arrival at the endpoint, ms, in ascending order. */
  async function delays(to: TestApp = app): Promise<number[]> {
    receiver.received.length = 0
    const sentAt = new Map<string, number>()
    const arrivals = watchArrivals(receiver)
    for (let i = 0; i < 100; i++) {
      const at = performance.now()
      const { id } = await call(to, 'quick', 'POST', '/jobs', { queue: 'quick', name: 'n' })
      sentAt.set(id, at)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    await eventually(() => arrivals.size === sentAt.size, LATE_MS).catch(() => {})
    return [...sentAt]
      .map(([id, at]) => (arrivals.get(id) ?? Number.POSITIVE_INFINITY) - at)
      .sort((a, b) => a - b)
  }

  const restart = () => startApp(redis, { ...SETTINGS, QUEUE_PREFIX, API_KEYS_FILE: path })
  return { app, hang, subscribeQuick, inFlight, delays, restart }
}

async function startHangingEndpoint(t: Test): Promise<string> {
  const server = createServer(() => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as { port: number }).port}/`
}

async function scriptRuns(): Promise<number> {
  const [, calls] = /cmdstat_evalsha:calls=(\d+)/.exec(await redis.client.info('commandstats'))!
  return Number(calls)
}

function watchArrivals(receiver: Receiver): Map<string, number> {
  const arrivals = new Map<string, number>()
  receiver.answer = ({ job }) => {
    arrivals.set(job.id, performance.now())
    return {}
  }
  return arrivals
}

function isOnTime(t: Test, delays: number[]): void {
  const [median, most] = [delays[50]!, delays.at(-1)!]
  t.comment(`p50 ${median.toFixed(1)} ms, most ${most.toFixed(1)} ms`)
  t.ok(most < LATE_MS, `${Math.round(most)} ms`)
}

t.test('subscriptions that exist before the endpoints of another key hang', async (t) => {
  const { hang, subscribeQuick, inFlight, delays } = await open(t)
  await subscribeQuick()
  isOnTime(t, await delays())
  await hang()
  await eventually(async () => (await inFlight()) >= SLOTS / 2)
  isOnTime(t, await delays())
  t.ok((await inFlight()) <= SLOTS)
})

t.test('a key whose first subscription comes when all slots are in use', async (t) => {
  const { hang, subscribeQuick, inFlight, delays } = await open(t)
  await hang()
  await eventually(async () => (await inFlight()) === SLOTS)
  await subscribeQuick()
  isOnTime(t, await delays())
  t.ok((await inFlight()) <= SLOTS + 1, 'one more per key')
  const before = await scriptRuns()
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  const runs = (await scriptRuns()) - before
  t.ok(runs < 50, `${runs} commands for queues without jobs or slots`)
})

t.test('a process that starts with all these subscriptions', async (t) => {
  const { app, hang, subscribeQuick, inFlight, delays, restart } = await open(t)
  await subscribeQuick()
  await hang()
  await app.http.close()
  const next = await restart()
  t.teardown(() => next.http.close())
  await eventually(async () => (await inFlight(next)) >= SLOTS / 2)
  isOnTime(t, await delays(next))
  const held = await inFlight(next)
  t.ok(held <= 0.75 * SLOTS, `${held} in flight: every subscription had its share before any took a job`)
})
