/** Requests that wait are bounded on every route, and end when their client or the rights of their key have gone. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  addKey,
  addSecret,
  createApiKeySecret,
  type KeyFile,
  readKeyFile,
  revoke,
} from '../../../src/auth/key-file.ts'
import { writeKeyFile } from '../../../src/auth/key-file-update.ts'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startAppWithKeys } from '../../helpers/keys.ts'
import { codesOf, openRawClient, type RequestText } from '../../helpers/raw-client.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const ALL = ['enqueue', 'read', 'work', 'manage'] as const

/** A take that waits. */
const take = (wait: number, queue = 'q'): RequestText => ({ path: `/queues/${queue}/leases`, body: { wait } })

async function call(app: TestApp, { method, path, body, secret }: RequestText) {
  const response = await app.http.inject({
    method: (method ?? (body ? 'POST' : 'GET')) as 'GET',
    url: path,
    headers: {
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...(secret === undefined ? {} : { authorization: `Bearer ${secret}` }),
    },
    ...(body ? { payload: JSON.stringify(body) } : {}),
  })
  return {
    status: response.statusCode,
    headers: response.headers,
    body: response.body === '' ? undefined : response.json(),
  }
}

async function listen(app: TestApp): Promise<number> {
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  return (app.http.server.address() as { port: number }).port
}

async function start(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const openWaits = async () => (await call(app, { path: '/stats' })).body.waits.open as number
  return { app, openWaits }
}

t.test('a connection that pipelines twice as many waits as it may gets 429 for the rest', async (t) => {
  const { app, openWaits } = await start(t, { MAX_WAITS_PER_CONNECTION: '4' })
  const client = await openRawClient(t, await listen(app))
  client.send(...Array.from({ length: 8 }, () => take(1)))
  await eventually(async () => (await openWaits()) === 4)
  await eventually(() => client.responses().length === 8)
  const statuses = client.responses().map(({ status }) => status)
  t.same(statuses, [204, 204, 204, 204, 429, 429, 429, 429])
  t.same(new Set(codesOf(client.responses())), new Set(['TOO_MANY_WAITS']))
  t.equal(client.responses()[7]!.headers['retry-after'], '1')
  t.match((await call(app, { path: '/stats' })).body.waits, { open: 0, refused: 4 })
  client.send(take(1))
  await eventually(() => client.responses().length === 9)
  t.equal(client.responses()[8]!.status, 204, 'the connection may wait again')
})

t.test('one connection cannot hold a hundred thousand waits', async (t) => {
  const { app, openWaits } = await start(t)
  const port = await listen(app)
  const client = await openRawClient(t, port)
  const other = await openRawClient(t, port)
  other.send(take(30))
  await eventually(async () => (await openWaits()) === 1)
  for (let i = 0; i < 131 && !client.isClosed(); i++) {
    client.send(...Array.from({ length: 1_000 }, () => take(30)))
    await sleep(1)
  }
  await eventually(client.isClosed)
  await eventually(async () => (await openWaits()) === 1)
  t.notOk(other.isClosed())
  const { connections } = (await call(app, { path: '/stats' })).body
  t.match(connections, { open: 1, disconnected: { pipelined: 1 } })
})

t.test('the waits of an API key are bounded; other keys may still wait', async (t) => {
  const { app, secrets } = await startAppWithKeys(
    t,
    redis,
    { a: { scopes: [...ALL] }, b: { scopes: [...ALL] } },
    { MAX_WAITS_PER_KEY: '5' },
  )
  const ofA = await Promise.all(
    Array.from({ length: 10 }, () => call(app, { ...take(1), secret: secrets.a })).concat(
      call(app, { ...take(1), secret: secrets.b }),
    ),
  )
  t.same(
    ofA.map(({ status }) => status),
    [...Array(5).fill(204), ...Array(5).fill(429), 204],
  )
  t.match(ofA[9], {
    headers: { 'retry-after': '1' },
    body: { code: 'TOO_MANY_WAITS', retryable: true, outcome: 'not_executed', detail: /API key a / },
  })
  t.equal(
    (await call(app, { ...take(1), secret: secrets.a })).status,
    204,
    'once they have ended, a waits again',
  )
})

t.test('every route that waits counts, and is refused above MAX_WAITS before it does anything', async (t) => {
  const { app, openWaits } = await start(t, { MAX_WAITS: '1' })
  const stored = await call(app, { path: '/jobs', body: { queue: 'w', name: 'n', opts: { jobId: 'one' } } })
  t.equal(stored.status, 201)
  const leased = await call(app, { path: '/queues/w/leases', body: {} })
  const [{ lease }] = leased.body.jobs
  const holding = call(app, take(2))
  await eventually(async () => (await openWaits()) === 1)
  const waiting: RequestText[] = [
    take(30),
    { path: '/jobs/w:one?wait=30' },
    { path: '/jobs?wait=30', body: { queue: 'w', name: 'n', opts: { jobId: 'two' } } },
    { path: '/leases/settle', body: { items: [{ lease, outcome: 'complete' }], next: { wait: 30 } } },
    { path: '/jobs/w:one/events' },
    { path: '/queues/w/events' },
  ]
  for (const request of waiting) {
    const { status, headers, body } = await call(app, request)
    t.equal(status, 503, request.path)
    t.match(body, { code: 'OVERLOADED', outcome: 'not_executed', detail: /MAX_WAITS/ }, request.path)
    t.equal(headers['retry-after'], '1')
  }
  t.equal((await call(app, { path: '/jobs/w:two' })).status, 404, 'nothing was enqueued')
  t.match((await call(app, { path: '/jobs/w:one' })).body, { state: 'active' }, 'nothing was settled')
  t.equal(
    (await call(app, { path: '/queues/w/leases', body: {} })).status,
    204,
    'a take without wait is served',
  )
  t.equal((await holding).status, 204)
  t.equal(await openWaits(), 0)
})

t.test('clients that have closed are handed nothing, however their requests are queued', async (t) => {
  const { app, openWaits } = await start(t)
  const port = await listen(app)
  const add = (jobId: string) =>
    call(app, { path: '/jobs', body: { queue: 'q', name: 'n', opts: { jobId } } })
  const destroyed = await openRawClient(t, port)
  destroyed.send(take(30), take(30))
  const halfClosed = await openRawClient(t, port)
  halfClosed.send(take(30), take(30))
  await eventually(async () => (await openWaits()) === 4)
  destroyed.socket.destroy()
  halfClosed.socket.end()
  await eventually(async () => (await openWaits()) === 0)
  for (const id of ['a', 'b', 'c', 'd']) await add(id)
  const { body } = await call(app, { path: '/queues/q/leases', body: { max: 10 } })
  t.equal(body.jobs.length, 4, 'another worker gets every job')
})

t.test('a job whose answer was queued behind another when the client closed is given back', async (t) => {
  const { app, openWaits } = await start(t)
  const port = await listen(app)
  await call(app, { path: '/jobs', body: { queue: 'q', name: 'n', opts: { jobId: 'a' } } })
  const client = await openRawClient(t, port)
  client.send(take(30, 'empty'), { path: '/queues/q/leases', body: { leaseMs: 86_400_000 } })
  const state = async () => (await call(app, { path: '/jobs/q:a', method: 'GET' })).body.state
  await eventually(async () => (await state()) === 'active' && (await openWaits()) === 1)
  client.socket.destroy()
  await eventually(async () => (await state()) === 'waiting')
  t.equal((await call(app, { path: '/queues/q/leases', body: {} })).body.jobs.length, 1)
})

t.test('an event stream queued behind a wait ends with its connection', async (t) => {
  const { app, openWaits } = await start(t)
  const client = await openRawClient(t, await listen(app))
  client.send(take(30), { path: '/queues/q/events' })
  const followers = async () => (await call(app, { path: '/health/redis' })).body.events.subscribers as number
  await eventually(async () => (await openWaits()) === 2 && (await followers()) === 2)
  client.socket.destroy()
  await eventually(async () => (await openWaits()) === 0)
  // The dispatcher keeps following a queue that had a take.
  await eventually(async () => (await followers()) === 1)
})

/** A key that may do everything, another one, and every kind of wait of the first. */
async function startWaiting(t: Test) {
  const { app, secrets, path } = await startAppWithKeys(t, redis, {
    a: { scopes: [...ALL], queues: ['q', 'w', 'empty'] },
    ops: { scopes: [...ALL] },
  })
  const port = await listen(app)
  const secret = secrets.a
  await call(app, { path: '/jobs', body: { queue: 'w', name: 'n', opts: { jobId: 'one' } }, secret })
  const requests: Record<string, RequestText> = {
    take: take(30),
    poll: { path: '/jobs/w:one?wait=30' },
    add: { path: '/jobs?wait=30', body: { queue: 'w', name: 'n', opts: { jobId: 'two' } } },
    job: { path: '/jobs/w:one/events' },
    queue: { path: '/queues/w/events' },
  }
  const clients = await Promise.all(Object.values(requests).map(() => openRawClient(t, port)))
  for (const [at, request] of Object.values(requests).entries()) clients[at]!.send({ ...request, secret })
  const openWaits = async () =>
    (await call(app, { path: '/stats', secret: secrets.ops })).body.waits.open as number
  await eventually(async () => (await openWaits()) === clients.length)
  const [taking, polling, adding, job, queue] = clients as [(typeof clients)[0], ...typeof clients]
  await eventually(() => [job!, queue!].every(({ text }) => text().includes('event: snapshot')))
  const change = async (update: (file: KeyFile) => KeyFile) =>
    writeKeyFile(path, update((await readKeyFile(path))!))
  return {
    app,
    secrets,
    openWaits,
    change,
    taking,
    polling: polling!,
    adding: adding!,
    job: job!,
    queue: queue!,
  }
}

const now = () => new Date().toISOString()

t.test('a revoked key loses its waits within two seconds, and gets nothing more', async (t) => {
  const { app, secrets, openWaits, change, taking, polling, adding, job, queue } = await startWaiting(t)
  await change((file) => revoke(file, 'a', undefined, now()))
  const revokedAt = performance.now()
  await eventually(async () => (await openWaits()) === 0)
  const elapsedMs = performance.now() - revokedAt
  t.ok(elapsedMs <= 2_000 + 500, `${Math.round(elapsedMs)} ms`)
  await call(app, { path: '/jobs', body: { queue: 'q', name: 'secret' }, secret: secrets.ops })
  await call(app, { path: '/jobs', body: { queue: 'w', name: 'secret' }, secret: secrets.ops })
  for (const one of [taking, polling]) {
    await eventually(() => one.responses().length === 1)
    t.equal(one.responses()[0]!.status, 401)
    t.same(codesOf(one.responses()), ['UNAUTHORIZED'])
  }
  await eventually(() => adding.responses().length === 1)
  t.equal(adding.responses()[0]!.status, 201, 'the job was stored, which is all that the client learns')
  for (const one of [job, queue]) await eventually(() => one.text().endsWith('\r\n0\r\n\r\n'))
  t.notMatch(queue.text(), /secret/)
  const { body } = await call(app, { path: '/queues/q/leases', body: {}, secret: secrets.ops })
  t.equal(body.jobs.length, 1, 'the job was not handed to the revoked key')
})

t.test('the only wait of a revoked key ends too', async (t) => {
  const { app, secrets, path } = await startAppWithKeys(t, redis, { a: { scopes: [...ALL] } })
  const waiting = call(app, { ...take(30), secret: secrets.a })
  await sleep(50)
  await writeKeyFile(path, revoke((await readKeyFile(path))!, 'a', undefined, now()))
  t.equal((await waiting).status, 401)
})

t.test('waits without a key end when the service gets its first key', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-waits-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const path = join(folder, 'keys.json')
  const { app, openWaits } = await start(t, { API_KEYS_FILE: path })
  const waiting = call(app, take(30))
  await eventually(async () => (await openWaits()) === 1)
  const key = { id: 'a', scopes: [...ALL], queues: ['*'], rate: null }
  await writeKeyFile(path, addKey({ version: 1, keys: [] }, key, createApiKeySecret('a'), now()))
  t.equal((await waiting).status, 401)
})

t.test('a key that gets a second secret keeps its waits', async (t) => {
  const { app, secrets, openWaits, change, taking } = await startWaiting(t)
  const added = createApiKeySecret('a')
  await change((file) => addSecret(file, 'a', added, now()))
  await eventually(async () => (await call(app, { path: '/jobs/q:none', secret: added })).status === 404)
  await sleep(1_000)
  t.equal(await openWaits(), 5)
  await call(app, { path: '/jobs', body: { queue: 'q', name: 'n' }, secret: secrets.ops })
  await eventually(() => taking.responses().length === 1)
  t.equal(taking.responses()[0]!.status, 200)
})

t.test('a key that loses a queue loses only the waits for that queue', async (t) => {
  const { openWaits, change, taking, polling } = await startWaiting(t)
  await change((file) => ({
    ...file,
    keys: file.keys.map((key) => (key.id === 'a' ? { ...key, queues: ['w', 'empty'] } : key)),
  }))
  await eventually(async () => (await openWaits()) === 4)
  await eventually(() => taking.responses().length === 1)
  t.same(codesOf(taking.responses()), ['UNAUTHORIZED'])
  t.equal(polling.responses().length, 0)
})

t.test('a key that loses a scope loses only the waits that need it', async (t) => {
  const { openWaits, change, taking, polling, adding } = await startWaiting(t)
  await change((file) => ({
    ...file,
    keys: file.keys.map((key) => (key.id === 'a' ? { ...key, scopes: ['work', 'enqueue'] } : key)),
  }))
  await eventually(async () => (await openWaits()) === 1)
  t.equal(taking.responses().length, 0)
  await eventually(() => polling.responses().length + adding.responses().length === 2)
  t.equal(adding.responses()[0]!.status, 201)
})
