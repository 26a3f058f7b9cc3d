/**
 * Redis down, frozen, full, read-only or without its scripts: the error code, its outcome, its timing, and
 * the recovery without a restart. Every fault is real.
 */
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis, type TestRedis } from '../../helpers/redis.ts'

async function open(t: Test, settings: Record<string, string> = {}, args: string[] = []) {
  const redis = await startRedis(args)
  const app = await startApp(redis, settings)
  t.teardown(async () => {
    await app.http.close()
    await redis.stop()
  })
  return { redis, app }
}

async function post(app: TestApp, job: object = { queue: 'q', name: 'n' }) {
  const began = performance.now()
  const headers = { 'content-type': 'application/json' }
  const response = await app.http.inject({
    method: 'POST',
    url: '/jobs',
    headers,
    payload: JSON.stringify(job),
  })
  return {
    status: response.statusCode,
    headers: response.headers,
    body: response.json(),
    ms: performance.now() - began,
  }
}

const serverPid = async ({ client }: TestRedis) =>
  Number(/process_id:(\d+)/.exec(await client.info('server'))?.[1])

t.test(
  'while Redis is down every write fails within 100 ms with its outcome, and works again afterwards',
  async (t) => {
    const { redis, app } = await open(t)
    const before = await post(app, { queue: 'q', name: 'n', opts: { jobId: 'known' } })
    await app.http.inject(`/jobs/${before.body.id}`)
    // Renaming the server's socket makes it unreachable; renaming it back restores it.
    const { rename } = await import('node:fs/promises')
    await rename(redis.socket, `${redis.socket}.hidden`)
    await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await eventually(async () => (await app.http.inject('/health/ready')).statusCode === 503)
    const times: number[] = []
    for (let round = 0; round < 5; round++) {
      const { status, headers, body, ms } = await post(app)
      t.equal(status, 503)
      t.match(body, {
        code: 'REDIS_UNAVAILABLE',
        outcome: 'not_executed',
        retryable: true,
        ids: [/^q:[0-9a-f-]{36}$/],
      })
      t.equal(headers['retry-after'], '1')
      times.push(ms)
    }
    // The median tolerates a machine that is busy for a moment.
    t.ok(times.sort((a, b) => a - b)[2]! < 100, `${times.map(Math.round)} ms`)
    const batch = await app.http.inject({
      method: 'POST',
      url: '/jobs/batch',
      headers: { 'content-type': 'application/json' },
      payload: '{"jobs":[{"name":"n","opts":{"jobId":"a"}},{"name":"n","opts":{"jobId":"b"}}]}',
    })
    t.equal(batch.statusCode, 503)
    t.match(batch.json(), { outcome: 'not_executed', ids: ['default:a', 'default:b'] })
    const health = await app.http.inject('/health')
    t.equal(health.statusCode, 503)
    t.match(health.json(), { status: 'fail', redis: { reachable: false } })
    await rename(`${redis.socket}.hidden`, redis.socket)
    await eventually(async () => (await post(app)).status === 201, 5_000)
    await eventually(async () => (await app.http.inject('/health')).statusCode === 200, 5_000)
  },
)

t.test('while Redis is down, cached statuses are served and marked stale', async (t) => {
  const { redis, app } = await open(t, { CACHE_TTL_SHORT: '1' })
  const { body } = await post(app)
  const fresh = await app.http.inject(`/jobs/${body.id}`)
  const { rename } = await import('node:fs/promises')
  await rename(redis.socket, `${redis.socket}.hidden`)
  await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await eventually(async () => (await app.http.inject('/health/ready')).statusCode === 503)
  const stale = await app.http.inject(`/jobs/${body.id}`)
  t.equal(stale.statusCode, 200)
  t.equal(stale.body, fresh.body)
  t.match(stale.headers['cache-status'], /^sluice; fwd=stale; detail=redis-unavailable; ttl=-\d+$/)
  t.equal((await app.http.inject('/jobs/q:unknown')).statusCode, 503, 'an uncached status is not guessed')
  await rename(`${redis.socket}.hidden`, redis.socket)
})

t.test('a service that starts while Redis is down reports it, and works once Redis is up', async (t) => {
  const redis = await startRedis()
  const { rename } = await import('node:fs/promises')
  await rename(redis.socket, `${redis.socket}.hidden`)
  const { createApp } = await import('../../../src/app.ts')
  const { testConfig } = await import('../../helpers/app.ts')
  const { pino } = await import('pino')
  const config = testConfig()
  const app = {
    ...(await createApp(config, redis, pino({ level: 'silent' }))),
    config,
    prefix: config.QUEUE_PREFIX,
  }
  t.teardown(async () => {
    await app.http.close()
    await redis.stop()
  })
  t.match(await post(app), { status: 503, body: { outcome: 'not_executed' } })
  await rename(`${redis.socket}.hidden`, redis.socket)
  await eventually(async () => (await post(app)).status === 201, 5_000)
})

t.test(
  'a frozen Redis causes 503 at the timeout with outcome unknown, then at once, until it recovers',
  async (t) => {
    const { redis, app } = await open(t, { REDIS_COMMAND_TIMEOUT: '300', REDIS_ADMIN_TIMEOUT: '300' })
    await post(app)
    const pid = await serverPid(redis)
    process.kill(pid, 'SIGSTOP')
    let first: Awaited<ReturnType<typeof post>>
    let then: Awaited<ReturnType<typeof post>>
    try {
      first = await post(app, { queue: 'q', name: 'n', opts: { jobId: 'maybe' } })
      then = await post(app)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    t.match(first, { status: 503, body: { code: 'REDIS_TIMEOUT', outcome: 'unknown', ids: ['q:maybe'] } })
    // 300 ms plus 100, doubled for a machine that is busy with other tests.
    t.ok(first.ms >= 290 && first.ms < 800, `${Math.round(first.ms)} ms`)
    t.match(then, { status: 503, body: { code: 'REDIS_UNAVAILABLE', outcome: 'not_executed' } })
    t.ok(then.ms < 50, `${Math.round(then.ms)} ms: nothing piles up behind a frozen Redis`)
    await eventually(async () => (await post(app)).status === 201, 5_000)
    const repeated = await post(app, { queue: 'q', name: 'n', opts: { jobId: 'maybe' } })
    t.match(
      repeated,
      { status: 200, body: { deduplicated: true } },
      'the repeat finds the job of the first request',
    )
  },
)

t.test('a full Redis refuses the job with REDIS_FULL, and accepts it once it has memory', async (t) => {
  // The watermark would refuse the job first.
  const { redis, app } = await open(t, { REDIS_MEMORY_WATERMARK: '0' })
  await redis.client.config('SET', 'maxmemory', '1')
  t.match(await post(app, { queue: 'q', name: 'n', opts: { jobId: 'x' } }), {
    status: 503,
    body: { code: 'REDIS_FULL', outcome: 'not_executed' },
  })
  t.equal(await redis.client.exists(`${app.prefix}:q:x`), 0)
  await redis.client.config('SET', 'maxmemory', '0')
  t.equal((await post(app, { queue: 'q', name: 'n', opts: { jobId: 'x' } })).status, 201)
})

t.test('scripts that Redis has lost are sent again', async (t) => {
  const { redis, app } = await open(t)
  const { body } = await post(app)
  await redis.client.script('FLUSH')
  t.equal((await post(app)).status, 201)
  t.equal((await app.http.inject(`/jobs/${body.id}`)).statusCode, 200)
})

/** The client ids of the command connections. */
async function commandSockets({ client }: TestRedis): Promise<string> {
  const list = String(await client.call('CLIENT', 'LIST'))
  return [...list.matchAll(/^id=(\d+) .*name=sluice:commands-/gm)].map(([, id]) => id).join()
}

t.test(
  'a replica refuses writes with REDIS_READONLY, and the service works once it is the master again',
  async (t) => {
    const master = await startRedis()
    const { redis, app } = await open(t)
    t.teardown(() => master.stop())
    await eventually(async () => (await commandSockets(redis)).split(',').length === 2)
    const before = await commandSockets(redis)
    await redis.client.replicaof('127.0.0.1', '1')
    t.match(await post(app), { status: 503, body: { code: 'REDIS_READONLY', outcome: 'not_executed' } })
    // The address may belong to another server by now, so the connection has to be replaced.
    await eventually(async () => (await commandSockets(redis)) !== before)
    await redis.client.replicaof('NO', 'ONE')
    await eventually(async () => (await post(app)).status === 201, 5_000)
  },
)

t.test('a Redis that cannot persist refuses writes with REDIS_MISCONFIGURED', async (t) => {
  const args = ['--enable-protected-configs', 'yes', '--save', '3600 1000000']
  const { redis, app } = await open(t, {}, args)
  await redis.client.config('SET', 'dir', '/proc')
  await redis.client.bgsave()
  await eventually(async () =>
    (await redis.client.info('persistence')).includes('rdb_last_bgsave_status:err'),
  )
  t.match(await post(app), { status: 503, body: { code: 'REDIS_MISCONFIGURED', outcome: 'not_executed' } })
  await redis.client.config('SET', 'stop-writes-on-bgsave-error', 'no')
  t.equal((await post(app)).status, 201)
  // A server that cannot save does not end on SIGTERM.
  await redis.client.config('SET', 'save', '')
})

t.test('a Redis user without permissions causes REDIS_DENIED', async (t) => {
  const { redis, app } = await open(t)
  const { id } = (await post(app)).body
  await redis.client.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval')
  t.match(await post(app), { status: 503, body: { code: 'REDIS_DENIED', outcome: 'not_executed' } })
  await redis.client.call('ACL', 'SETUSER', 'default', '+@all', '-hmget')
  const { statusCode } = await app.http.inject(`/jobs/${id}`)
  t.equal(statusCode, 503, 'a job that may not be read is not reported as missing')
  await redis.client.call('ACL', 'SETUSER', 'default', '+@all')
  t.equal((await post(app)).status, 201)
})

t.test('a lost reply creates no second job', async (t) => {
  const { redis, app } = await open(t)
  const { createServer, connect } = await import('node:net')
  const { createApp } = await import('../../../src/app.ts')
  const { testConfig, untilReady } = await import('../../helpers/app.ts')
  const { pino } = await import('pino')
  // A proxy that forwards everything until `swallow` makes it drop the next reply and disconnect.
  let swallow = false
  const proxy = createServer((client) => {
    const server = connect(redis.socket)
    client.pipe(server)
    server.on('data', (data) => {
      if (!swallow) return void client.write(data)
      swallow = false
      client.destroy()
      server.destroy()
    })
    for (const socket of [client, server]) socket.on('error', () => {})
    client.on('close', () => server.destroy())
  })
  const path = `${redis.socket}.proxy`
  await new Promise<void>((resolve) => proxy.listen(path, resolve))
  const config = testConfig({ QUEUE_PREFIX: app.prefix, REDIS_POOL_SIZE: '1' })
  const proxied = {
    ...(await createApp(config, { socket: path }, pino({ level: 'silent' }))),
    config,
    prefix: app.prefix,
  }
  t.teardown(async () => {
    await proxied.http.close()
    proxy.close()
  })
  await untilReady(proxied)
  await post(proxied)
  // The queue's name is recorded in the background; the lost reply must not be that one.
  await eventually(async () => (await redis.client.zcard(`${app.prefix}::sluice:known-queues`)) === 1)
  await untilReady(proxied)
  swallow = true
  const lost = await post(proxied)
  t.match(lost, { status: 503, body: { code: 'REDIS_UNAVAILABLE', outcome: 'unknown' } })
  await untilReady(proxied)
  const [id] = lost.body.ids
  t.equal(
    (await app.http.inject(`/jobs/${id}`)).statusCode,
    200,
    'the job exists under the id of the response',
  )
  t.equal(await redis.client.llen(`${app.prefix}:q:wait`), 2, 'only once')
})

t.test("a provider's limit causes REDIS_LIMIT, is shown in health, and ends with the limit", async (t) => {
  const redis = await startRedis()
  const { createServer, connect } = await import('node:net')
  // Forwards everything, or answers as Upstash does when the daily limit is reached.
  let limited = false
  const proxy = createServer((client) => {
    const server = connect(redis.socket)
    client.on('data', (data) => {
      if (limited) client.write('-ERR max daily request limit exceeded. Limit: 500000, Usage: 500000.\r\n')
      else server.write(data)
    })
    server.pipe(client)
    for (const socket of [client, server]) socket.on('error', () => {})
    client.on('close', () => server.destroy())
  })
  const path = `${redis.socket}.proxy`
  await new Promise<void>((resolve) => proxy.listen(path, resolve))
  const app = await startApp({ socket: path })
  t.teardown(async () => {
    await app.http.close()
    proxy.close()
    await redis.stop()
  })
  limited = true
  t.match(await post(app), { status: 503, body: { code: 'REDIS_LIMIT', outcome: 'not_executed' } })
  const health = (await app.http.inject('/health/redis')).json()
  t.match(health.limitError, /max daily request limit exceeded/)
  t.match(health.breaker, { open: true, reason: /max daily request limit exceeded/ })
  const refused = await post(app)
  t.match(refused, {
    status: 503,
    body: { code: 'REDIS_LIMIT', detail: /Commands are paused\. Repeat the request after `Retry-After`/ },
  })
  t.ok(refused.ms < 50, 'no command is sent to a provider that refuses it, and may bill it')
  t.match(
    health.recommendations.join('\n'),
    /The provider refused commands with "ERR max daily request limit exceeded/,
  )
  limited = false
  await eventually(async () => (await post(app)).status === 201, 5_000)
})
