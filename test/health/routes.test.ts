/** Health, readiness and counters, with Redis available, unavailable and damaged. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const get = async (url: string) => {
    const response = await app.http.inject(url)
    return { status: response.statusCode, body: response.json() }
  }
  const post = (payload: object) =>
    app.http.inject({
      method: 'POST',
      url: '/jobs',
      headers: { 'content-type': 'application/json' },
      payload: JSON.stringify(payload),
    })
  return { app, get, post }
}

t.test('health reports counts per queue, the pool against its budget, cache and batching', async (t) => {
  const { app, get, post } = await open(t, { REDIS_POOL_SIZE: '3' })
  await post({ queue: 'emails', name: 'n' })
  await post({ queue: 'emails', name: 'n', opts: { delay: 60_000 } })
  const queues = new Queue('emails', { connection: redis.client, prefix: app.prefix })
  await eventually(async () => (await redis.client.zcard(`${app.prefix}::sluice:known-queues`)) === 1)
  await get('/jobs/emails:none')
  const { status, body } = await get('/health')
  t.equal(status, 200)
  t.match(body, {
    cached: false,
    redis: { reachable: true, error: null },
    pool: { created: 5, budget: 50, headroom: 45, byRole: { commands: 3, admin: 1, events: 1 } },
    cache: { totalEntries: 1, validEntries: 1, expiredEntries: 0, misses: 1, enabled: true },
    batching: { activeBatches: 0, totalQueuedJobs: 0, jobsSent: 2 },
    queues: { emails: { waiting: 1, delayed: 1, active: 0, completed: 0 } },
    queuesKnown: 1,
  })
  t.same(await queues.getJobCounts('waiting', 'delayed'), { waiting: 1, delayed: 1 })
  t.ok(body.responseTimeMs > 0 && body.redis.roundTripMs > 0)
})

t.test('a cached summary says so and sends no command to Redis', async (t) => {
  const { get } = await open(t)
  const first = (await get('/health')).body
  const commands = (await get('/stats')).body.commandsSent
  const second = (await get('/health')).body
  t.equal(first.cached, false)
  t.match(second, { cached: true, checkedAt: first.checkedAt })
  t.same((await get('/stats')).body.commandsSent, commands)
})

t.test('with HEALTH_TTL=0 every summary is measured', async (t) => {
  const { get } = await open(t, { HEALTH_TTL: '0' })
  await get('/health')
  t.equal((await get('/health')).body.cached, false)
})

t.test('/health/redis reports budget, semaphore, server, durability and advice', async (t) => {
  const { get } = await open(t)
  const { status, body } = await get('/health/redis')
  t.equal(status, 200)
  t.match(body, {
    budget: { providerLimit: 1024, reserved: 24, usable: 1000, perProcess: 50, wanted: 4, usefulMax: 120 },
    semaphore: { permits: 100, inUse: 0, waiting: 0, maxWaiting: 200 },
    server: { role: 'master', evictionPolicy: 'noeviction', durability: { mode: 'snapshots only' } },
    limitError: null,
  })
  t.match(body.recommendations.join(' '), /snapshot/, 'a Redis that may lose jobs is reported')
})

t.test('a connection limit that is reached is reported', async (t) => {
  const small = await startRedis(['--maxclients', '5'])
  t.teardown(() => small.stop())
  // The test's own client is the fifth; a sixth would be refused.
  const app = await startApp(small, { HEALTH_TTL: '0' })
  t.teardown(() => app.http.close())
  const { Redis } = await import('ioredis')
  const sixth = new Redis({ path: small.socket, retryStrategy: () => null, lazyConnect: true })
  sixth.on('error', () => {})
  await t.rejects(sixth.connect())
  const health = (await app.http.inject('/health/redis')).json()
  t.match(health.server, { maxClients: 5, connectedClients: 5, rejectedConnections: 1 })
  t.match(health.recommendations.join('\n'), /5 of Redis' 5 connections are in use/)
  t.match(health.recommendations.join('\n'), /less than REDIS_PROVIDER_LIMIT/)
})

t.test('a pool larger than the budget is refused before a connection is opened', async (t) => {
  await t.rejects(
    startApp(redis, { REDIS_POOL_SIZE: '5', REDIS_MAX_CONNECTIONS: '4' }),
    /needs 7 Redis connections, but its budget is 4/,
  )
})

t.test('a damaged queue is reported, and the others are still counted', async (t) => {
  const { app, get, post } = await open(t, { HEALTH_TTL: '0' })
  await post({ queue: 'good', name: 'n' })
  await post({ queue: 'bad', name: 'n' })
  await eventually(async () => (await redis.client.zcard(`${app.prefix}::sluice:known-queues`)) === 2)
  await redis.client.set(`${app.prefix}:bad:failed`, 'no set')
  const { status, body } = await get('/health')
  t.equal(status, 200)
  t.same(Object.keys(body.queues), ['good'])
  t.match(body.recommendations.join('\n'), /The jobs of bad could not be counted/)
})

t.test('without Redis the service is alive but not ready', async (t) => {
  const own = await startRedis()
  const app = await startApp(own)
  t.teardown(() => app.http.close())
  await own.stop()
  await eventually(async () => (await app.http.inject('/health/ready')).statusCode === 503)
  t.equal((await app.http.inject('/health/live')).statusCode, 200)
  t.match((await app.http.inject('/health/ready')).json(), { status: 'fail', reason: /not usable|reached/ })
})

t.test('a draining service is not ready and still serves requests', async (t) => {
  const { app, get, post } = await open(t)
  app.drain()
  t.match(await get('/health/ready'), { status: 503, body: { reason: 'The service is shutting down.' } })
  t.equal((await post({ name: 'n' })).statusCode, 201)
})
