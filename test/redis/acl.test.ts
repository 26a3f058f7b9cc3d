/**
 * The service as the Redis user of examples/redis-acl.conf: everything works, Redis has denied it nothing, and there is no
 * word in the rule that it does without.
 */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createApp } from '../../src/app.ts'
import { eventually, type TestApp, testConfig, untilReady } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { follow, listen } from '../helpers/sse.ts'
import { callsByCommand, untilBlocked } from '../helpers/streams.ts'
import { freePort } from '../helpers/tls-redis.ts'

const FILE = resolve('examples/redis-acl.conf')
const rule = (await readFile(FILE, 'utf8')).split('\n').find((line) => line.startsWith('user '))!
const PASSWORD = 'change-me'

interface Server {
  /** May do everything; on the unix socket, while the service comes by TCP. */
  admin: Redis
  socket: string
  tcp: string
  unix: string
}

/** A Redis that has the user of the file, and lets nobody in who has no name. */
async function startServer(t: Test): Promise<Server> {
  const port = await freePort()
  const redis = await startRedis(['--include', FILE, '--bind', '127.0.0.1', '--port', `${port}`])
  t.teardown(() => redis.stop())
  await redis.client.call('ACL', 'SETUSER', 'admin', 'on', '>admin', '~*', '&*', '+@all')
  const admin = new Redis({
    path: redis.socket,
    username: 'admin',
    password: 'admin',
    disableClientInfo: true,
  })
  t.teardown(() => admin.disconnect())
  await admin.call('ACL', 'SETUSER', 'default', 'off')
  const { socket } = redis
  const user = `sluice:${PASSWORD}`
  return { admin, socket, tcp: `redis://${user}@127.0.0.1:${port}`, unix: `unix://${user}@${socket}` }
}

async function open(t: Test, url: string, settings: Record<string, string> = {}): Promise<TestApp> {
  const config = testConfig({ REDIS_URL: url, QUEUE_PREFIX: 'bull', ...settings })
  const app = await createApp(config, { url }, pino({ level: 'silent' }))
  t.teardown(() => app.http.close())
  await app.http.ready()
  return { ...app, config, prefix: config.QUEUE_PREFIX }
}

async function openReady(t: Test, url: string, settings: Record<string, string> = {}): Promise<TestApp> {
  const app = await open(t, url, settings)
  await untilReady(app)
  return app
}

const aclLog = async ({ admin }: Server) => (await admin.call('ACL', 'LOG')) as unknown[]

async function post(app: TestApp, url: string, payload: object, headers: Record<string, string> = {}) {
  const answer = await app.http.inject({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/json', ...headers },
    payload,
  })
  return { status: answer.statusCode, body: answer.json() }
}

/** Every route and option that has to do with Redis. What comes of it is tested elsewhere; here, that it is allowed. */
async function journey(t: Test, app: TestApp, { admin, socket }: Server): Promise<void> {
  const get = async (url: string, headers: Record<string, string> = {}) => {
    const { statusCode, body } = await app.http.inject({ url, headers })
    t.equal(statusCode, 200, `${url}: ${body}`)
    return JSON.parse(body)
  }
  const add = async (opts: object, status = 201, queue = 'q') =>
    t.equal((await post(app, '/jobs', { queue, name: 'n', opts })).status, status, JSON.stringify(opts))

  // Enqueueing, with each option that reaches Redis
  await add({ jobId: 'plain' })
  await add({ jobId: 'plain' }, 200)
  await add({ jobId: 'last', lifo: true })
  await add({
    jobId: 'often',
    attempts: 3,
    backoff: 100,
    removeOnComplete: true,
    removeOnFail: 5,
    keepLogs: 1,
  })
  await add({ jobId: 'later', delay: 900_000 })
  await add({ jobId: 'later2', delay: 900_000 })
  await add({ jobId: 'first', priority: 1 })
  await add({ jobId: 'second', priority: 1 })
  for (const [name, deduplication, others = {}] of [
    ['simple', {}],
    ['throttle', { ttl: 60_000 }],
    ['extend', { ttl: 60_000, extend: true }],
    ['replace', { ttl: 60_000, replace: true }, { delay: 60_000 }],
    ['reschedule', { reschedule: true }, { delay: 60_000 }],
  ] as const) {
    const opts = { ...others, deduplication: { id: name, ...deduplication } }
    await add(opts)
    await add(opts, name === 'replace' ? 201 : 200)
  }
  await admin.set('bull:q:de:stale', 'gone')
  await add({ deduplication: { id: 'stale' } })
  await admin.rpush('bull:busy:active', 'running')
  await admin.hset('bull:busy:running', { name: 'n', timestamp: 1, data: '{}', opts: '{}' })
  await admin.set('bull:busy:de:d', 'running')
  await add({ deduplication: { id: 'd', keepLastIfActive: true } }, 200, 'busy')
  await admin.hset('bull:busy:meta', { concurrency: 1 })
  await add({ jobId: 'a' }, 201, 'busy')
  const key = { 'idempotency-key': 'once' }
  for (const status of [201, 200]) {
    t.equal((await post(app, '/jobs', { queue: 'q', name: 'n' }, key)).status, status)
  }
  const batch = [{ queue: 'q', name: 'n', opts: { jobId: 'item' } }, { queue: 'other', name: 'n' }, {}]
  t.equal((await post(app, '/jobs/batch', { jobs: batch })).status, 207)

  // A job that fails half way is undone
  for (const queue of ['damaged', 'damaged2']) {
    await admin.set(`bull:${queue}:marker`, 'no sorted set')
    await admin.lpush(`bull:${queue}:wait`, 'other')
  }
  await add({ jobId: 'a' }, 503, 'damaged')
  await add({ jobId: 'a', lifo: true, deduplication: { id: 'd' } }, 503, 'damaged2')

  // Reading
  await admin.rpush('bull:q:plain:logs', 'a line')
  await get('/jobs/q:plain?include=data,logs')
  await get('/jobs?ids=q:plain,q:later,q:first,busy:running,other:x')
  for (const state of ['waiting', 'delayed', 'prioritized', 'active', 'failed', 'completed']) {
    await get(`/jobs?queue=q&state=${state}`)
  }
  for (const state of ['waiting', 'delayed', 'prioritized']) {
    const { jobs, cursor } = await get(`/jobs?queue=q&state=${state}&limit=1`)
    await get(`/jobs?queue=q&state=${state}&limit=1&cursor=${cursor}`)
    // The place of a job that is gone has to be looked for.
    const gone = jobs[0].id.slice('q:'.length)
    await admin
      .multi()
      .lrem('bull:q:wait', 1, gone)
      .zrem('bull:q:delayed', gone)
      .zrem('bull:q:prioritized', gone)
      .exec()
    await get(`/jobs?queue=q&state=${state}&limit=1&cursor=${cursor}`)
  }
  await get('/jobs?queue=q&limit=1')

  // Following, and waiting
  const url = await listen(app)
  const [first] = await admin.xrange('bull:q:events', '-', '+', 'COUNT', 1)
  const whole = follow(t, `${url}/queues/q/events`, first![0])
  await whole.next('added')
  await untilBlocked(admin)
  await follow(t, `${url}/queues/other/events`).next('snapshot')
  await follow(t, `${url}/jobs/q:first/events`).next('snapshot')
  const worker = new Worker('work', async () => 'done', {
    connection: { path: socket, username: 'admin', password: 'admin', disableClientInfo: true },
  })
  t.teardown(() => worker.close())
  const done = await post(app, '/jobs?wait=10', { queue: 'work', name: 'n', opts: { jobId: 'w' } })
  t.match(done, { status: 201, body: { state: 'completed', result: 'done' } })
  await get('/jobs/work:w?wait=5')

  // Operations
  for (const path of ['/health', '/health/live', '/health/ready', '/health/redis', '/stats']) await get(path)
}

/** Tells the commands that came from elsewhere than the unix socket, those within their scripts included, by name. */
async function startWatching(t: Test, admin: Redis): Promise<() => Promise<Set<string>>> {
  const seen = new Set<string>()
  let echoed = false
  const monitor = await admin.monitor()
  t.teardown(() => monitor.disconnect())
  let from = ''
  monitor.on('monitor', (_time: string, args: string[], source: string) => {
    // What a script does follows the line that runs the script.
    if (source !== 'lua') from = source
    if (from.startsWith('unix:')) {
      echoed ||= args[0] === 'echo'
      return
    }
    const [command = '', subcommand = ''] = args.map((arg) => arg.toLowerCase())
    seen.add(['client', 'xinfo'].includes(command) ? `${command}|${subcommand}` : command)
  })
  return async () => {
    await admin.echo('that is all')
    await eventually(() => echoed)
    return seen
  }
}

/** MONITOR does not show these. */
const HIDDEN = ['config|get', 'client|unblock']

t.test(
  'every route works over TCP with Redis denying nothing, and no word of the rule is idle',
  async (t) => {
    const server = await startServer(t)
    const { admin } = server
    const commands = await startWatching(t, admin)
    await admin.config('RESETSTAT')
    const app = await openReady(t, server.tcp)
    const atStart = await callsByCommand(admin)
    await journey(t, app, server)
    const durable = await openReady(t, server.tcp, { DURABILITY_REPLICAS: '1', DURABILITY_TIMEOUT: '50' })
    t.match(await post(durable, '/jobs', { queue: 'q', name: 'n' }), { body: { code: 'NOT_REPLICATED' } })
    t.same(await aclLog(server), [])

    const seen = await commands()
    const calls = await callsByCommand(admin)
    // Nobody but the service sends these; nor, up to here, the first.
    if (atStart['hello']) seen.add('hello')
    for (const command of HIDDEN) if (calls[command]) seen.add(command)
    // Redis 6 counts and shows subcommands under their command alone.
    if (/redis_version:6/.test(await admin.info('server'))) return
    const allowed = rule.split(' ').filter((word) => word.startsWith('+'))
    t.same([...seen].sort(), allowed.map((word) => word.slice(1)).sort())
  },
)

t.test('every route works over the unix socket too', async (t) => {
  const server = await startServer(t)
  await journey(t, await openReady(t, server.unix), server)
  t.same(await aclLog(server), [])
  const list = String(await server.admin.call('CLIENT', 'LIST'))
  const sockets = list.split('\n').filter((line) => / name=sluice:/.test(line))
  t.equal(sockets.length, 4)
  for (const line of sockets) t.match(line, / user=sluice /)
})

t.test('what the service has no use for is denied, and every key that is not of its prefix', async (t) => {
  const server = await startServer(t)
  const client = new Redis(server.tcp, { disableClientInfo: true })
  t.teardown(() => client.disconnect())
  await server.admin.set('elsewhere', 'secret')
  const denied: string[][] = [
    ...['elsewhere', 'bul:x', 'bullx', ''].map((key) => ['GET', key]),
    ['EVAL', "return redis.call('GET', 'elsewhere')", '0'],
    ['EVAL', "return redis.call('FLUSHALL')", '0'],
    ['XREAD', 'STREAMS', 'bull:q:events', 'elsewhere', '0', '0'],
    ...[
      'FLUSHALL',
      'FLUSHDB',
      'KEYS *',
      'SCAN 0',
      'DBSIZE',
      'SHUTDOWN',
      'MONITOR',
      'ACL LIST',
      'CLIENT LIST',
    ],
    ...['CLIENT KILL TYPE normal', 'CONFIG SET maxmemory 1', 'SCRIPT FLUSH', 'SUBSCRIBE c'],
    ...['PUBLISH c m', 'REPLICAOF NO ONE', 'SELECT 1', 'RENAME bull:a bull:b', 'MIGRATE h 1 k 0 1'],
  ].map((command) => (typeof command === 'string' ? command.split(' ') : command))
  for (const [command, ...args] of denied) {
    await t.rejects(
      client.call(command!, ...args),
      /NOPERM|^ERR The user executing the script can't/,
      [command, ...args].join(' '),
    )
  }
  t.equal(await server.admin.get('elsewhere'), 'secret')
})

t.test('without config|get all works, and /health cannot say how often Redis writes to disk', async (t) => {
  const server = await startServer(t)
  await server.admin.call('ACL', 'SETUSER', 'sluice', '-config|get')
  await server.admin.config('SET', 'appendonly', 'yes')
  const app = await openReady(t, server.tcp)
  t.equal((await post(app, '/jobs', { queue: 'q', name: 'n' })).status, 201)
  const health = await app.http.inject('/health/redis')
  t.equal(health.statusCode, 200)
  t.match(health.json(), { error: null, server: { durability: { mode: 'append-only file' } } })
})

t.test('a wrong password is a 503, and the operator is told', async (t) => {
  const server = await startServer(t)
  for (const url of [server.tcp, server.unix]) {
    const app = await open(t, url.replace(PASSWORD, 'hunter2'))
    const health = async () => (await app.http.inject('/health/redis')).body
    await eventually(async () => (await health()).includes('WRONGPASS'))
    t.notMatch(await health(), 'hunter2')
    t.match(await post(app, '/jobs', { queue: 'q', name: 'n' }), {
      status: 503,
      body: { outcome: 'not_executed' },
    })
    t.equal((await app.http.inject('/jobs/q:a')).statusCode, 503)
    t.equal((await app.http.inject('/health/ready')).statusCode, 503)
  }
})
