/** Long polls end the moment the job changes, cost nothing until then, and are dropped when the client disconnects. */
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../../helpers/app.ts'
import { startRedis } from '../../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const queue = new Queue('q', { connection: redis.client, prefix: app.prefix })
  const get = async (url: string, headers: Record<string, string> = {}) => {
    const began = performance.now()
    const answer = await app.http.inject({ url, headers })
    return { status: answer.statusCode, headers: answer.headers, body: answer, ms: performance.now() - began }
  }
  const post = async (url: string, payload: object, headers: Record<string, string> = {}) => {
    const began = performance.now()
    const answer = await app.http.inject({
      method: 'POST',
      url,
      headers: { 'content-type': 'application/json', ...headers },
      payload: JSON.stringify(payload),
    })
    return { status: answer.statusCode, headers: answer.headers, body: answer, ms: performance.now() - began }
  }
  const stats = async () => (await app.http.inject('/stats')).json()
  const untilWaiting = (count: number) => eventually(async () => (await stats()).waiting === count)
  /** Takes a job as a native worker does; the test settles it. */
  const take = async () => {
    const worker = new Worker('q', null, { connection, prefix: app.prefix, autorun: false })
    t.teardown(() => worker.close(true))
    const job = await worker.getNextJob('token')
    return job!
  }
  return { app, queue, get, post, stats, untilWaiting, take }
}

t.test(
  'a request that waits for the end is answered the moment a native worker settles the job',
  async (t) => {
    const { queue, get, untilWaiting, take } = await open(t)
    await queue.add('n', {}, { jobId: 'a' })
    const waiting = get('/jobs/q:a?wait=20')
    await untilWaiting(1)
    const job = await take()
    await job.updateProgress(50)
    await sleep(50)
    await job.moveToCompleted({ sum: 3 }, 'token', false)
    const completedAt = performance.now()
    const { status, body, headers } = await waiting
    t.ok(performance.now() - completedAt < 500)
    t.equal(status, 200)
    t.match(body.json(), { state: 'completed', result: { sum: 3 }, progress: 50 })
    t.notOk('retry-after' in headers, 'no further poll is needed')
    await untilWaiting(0)
  },
)

t.test('a wait for a job that has ended, or that does not exist, is answered at once', async (t) => {
  const { queue, get, take } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  await (await take()).moveToFailed(new Error('no'), 'token', false)
  const ended = await get('/jobs/q:a?wait=20')
  t.match(ended.body.json(), { state: 'failed', error: { message: 'no' } })
  const none = await get('/jobs/q:none?wait=20')
  t.equal(none.status, 404)
  t.ok(ended.ms < 2_000 && none.ms < 2_000)
})

t.test('when the time is up the response is the unfinished job, with Retry-After', async (t) => {
  const { queue, get, untilWaiting } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const { status, body, headers, ms } = await get('/jobs/q:a?wait=1')
  t.match(body.json(), { state: 'waiting' })
  t.equal(status, 200)
  t.match(headers, { 'retry-after': '1', etag: /^"/ })
  t.ok(ms >= 1_000 && ms < 2_000, `${ms} ms`)
  await untilWaiting(0)
})

t.test(
  'Prefer: wait is granted up to the maximum, and Preference-Applied names the granted wait',
  async (t) => {
    const { queue, get, untilWaiting, take } = await open(t)
    await queue.add('n', {}, { jobId: 'a' })
    const one = await get('/jobs/q:a', { prefer: 'respond-async, wait=1' })
    t.equal(one.headers['preference-applied'], 'wait=1')
    t.ok(one.ms >= 1_000)
    const waiting = get('/jobs/q:a', { prefer: 'wait=999999' })
    await untilWaiting(1)
    await (await take()).moveToCompleted(1, 'token', false)
    t.equal((await waiting).headers['preference-applied'], 'wait=30')
  },
)

t.test('until=change ends with any change since the request, or since the ETag that it sends', async (t) => {
  const { queue, get, untilWaiting, take } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const first = get('/jobs/q:a?wait=20&until=change')
  await untilWaiting(1)
  const job = await take()
  const active = await first
  t.match(active.body.json(), { state: 'active' })
  const etag = `${active.headers['etag']}`
  const second = get('/jobs/q:a?wait=20&until=change', { 'if-none-match': etag })
  await untilWaiting(1)
  await job.updateProgress(1)
  const progressed = await second
  t.match(progressed.body.json(), { progress: 1 })
  const late = await get('/jobs/q:a?wait=20&until=change', { 'if-none-match': etag })
  t.equal(late.status, 200, 'it has changed since the ETag')
  t.ok(late.ms < 2_000)
  const now = `${progressed.headers['etag']}`
  const unchanged = await get('/jobs/q:a?wait=1&until=change', { 'if-none-match': now })
  t.equal(unchanged.status, 304, 'the time is up')
  t.ok(unchanged.ms >= 1_000)
})

t.test('a request that waits for a job is answered 404 at once when the job is removed', async (t) => {
  const { queue, get, untilWaiting } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const waiting = get('/jobs/q:a?wait=20')
  await untilWaiting(1)
  await queue.remove('a')
  const { status, ms } = await waiting
  t.equal(status, 404)
  t.ok(ms < 5_000)
})

t.test('requests that wait for a job that is not kept get its result from its final event', async (t) => {
  const { queue, get, untilWaiting, take } = await open(t)
  await queue.add('n', {}, { jobId: 'a', removeOnComplete: true })
  const waiting = [get('/jobs/q:a?wait=20'), get('/jobs/q:a?wait=20&include=data')]
  await untilWaiting(2)
  await (await take()).moveToCompleted({ sum: 3 }, 'token', false)
  for (const { status, body } of await Promise.all(waiting)) {
    t.equal(status, 200)
    t.match(body.json(), { state: 'completed', result: { sum: 3 }, attemptsMade: 1, finishedAt: /Z$/ })
  }
  t.equal((await get('/jobs/q:a')).status, 404)
})

t.test(
  'POST with wait stores and waits: 201 with the finished job, or the unfinished one when the time is up',
  async (t) => {
    const { app, post, untilWaiting, take } = await open(t)
    const body = { queue: 'q', name: 'n', opts: { removeOnComplete: true } }
    const waiting = post('/jobs?wait=20', body)
    await untilWaiting(1)
    await (await take()).moveToCompleted('done', 'token', false)
    const ended = await waiting
    t.equal(ended.status, 201)
    t.match(ended.body.json(), { state: 'completed', result: 'done' })
    const late = await post('/jobs?wait=1', body)
    t.equal(late.status, 201)
    t.match(late.body.json(), { state: 'waiting' })
    t.ok(late.ms >= 1_000)
    const { location } = late.headers
    t.equal((await app.http.inject(`${location}`)).statusCode, 200)
  },
)

t.test('POST with wait returns the result of a job that finishes at once and is not kept', async (t) => {
  const { app, post } = await open(t)
  const worker = new Worker('q', async () => 'quick', { connection, prefix: app.prefix })
  t.teardown(() => worker.close())
  await worker.waitUntilReady()
  const answers = await Promise.all(
    Array.from({ length: 50 }, () =>
      post('/jobs?wait=20', { queue: 'q', name: 'n', opts: { removeOnComplete: true } }),
    ),
  )
  for (const { status, body } of answers) {
    t.equal(status, 201)
    t.match(body.json(), { state: 'completed', result: 'quick' })
  }
})

t.test(
  'two thousand requests that wait for a thousand jobs open no connection, send few commands and are all answered',
  async (t) => {
    const { app, queue, get, stats, untilWaiting } = await open(t)
    const keys = Array.from({ length: 1_000 }, (_, i) => `k${i}`)
    await queue.addBulk(keys.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
    const connections = async () =>
      Number(/connected_clients:(\d+)/.exec(await redis.client.info('clients'))?.[1])
    const before = { connections: await connections(), reads: (await stats()).commandsSent.jobView ?? 0 }
    const waiting = [...keys, ...keys].map((key) => get(`/jobs/q:${key}?wait=25`))
    await untilWaiting(2_000)
    await sleep(300)
    const reads = (await stats()).commandsSent.jobView - before.reads
    t.ok(reads <= 20, `${reads} reads to begin with`)
    t.equal(await connections(), before.connections)
    const worker = new Worker('q', async (job) => job.id, { connection, prefix: app.prefix, concurrency: 50 })
    t.teardown(() => worker.close())
    const answers = await Promise.all(waiting)
    t.equal(answers.filter(({ body }) => body.json().state === 'completed').length, 2_000)
    await untilWaiting(0)
  },
)

t.test('a request is dropped at once when its client disconnects, and its job goes on', async (t) => {
  const { app, queue, untilWaiting, get } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.http.server.address() as { port: number }
  const sockets = Array.from({ length: 20 }, (_, i) => {
    const socket = connect(port, '127.0.0.1')
    const body = '{"queue":"q","name":"n"}'
    socket.write(
      i % 2 === 0
        ? 'GET /jobs/q:a?wait=25 HTTP/1.1\r\nHost: localhost\r\n\r\n'
        : `POST /jobs?wait=25 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    return socket
  })
  await untilWaiting(20)
  for (const socket of sockets) socket.destroy()
  const leftAt = performance.now()
  await untilWaiting(0)
  t.ok(performance.now() - leftAt < 1_000)
  t.equal((await get('/jobs/q:a')).status, 200)
  t.equal(await queue.getWaitingCount(), 11)
})

t.test('when the service closes, every waiting request gets the job as it is', async (t) => {
  const { app, queue, get, untilWaiting } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const waiting = [get('/jobs/q:a?wait=25'), get('/jobs/q:a?wait=25&until=change')]
  await untilWaiting(2)
  const began = performance.now()
  await app.http.close()
  t.ok(performance.now() - began < 2_000)
  for (const { status, body } of await Promise.all(waiting)) {
    t.equal(status, 200)
    t.match(body.json(), { state: 'waiting' })
  }
})

t.test('requests that wait while events do not arrive are answered nevertheless', async (t) => {
  const { queue, get, untilWaiting, take, app } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  await app.http.inject('/jobs/q:a')
  await redis.client.call('ACL', 'SETUSER', 'default', '-xread')
  t.teardown(() => redis.client.call('ACL', 'SETUSER', 'default', '+xread'))
  const waiting = get('/jobs/q:a?wait=25')
  await untilWaiting(1)
  await (await take()).moveToCompleted(1, 'token', false)
  const endedAt = performance.now()
  t.match((await waiting).body.json(), { state: 'completed' })
  // The read under way may take two more seconds; then the job is checked every second.
  t.ok(performance.now() - endedAt < 6_000)
})

t.test('invalid waits are refused with the parameter that is wrong', async (t) => {
  const { get, post } = await open(t)
  for (const query of ['wait=-1', 'wait=31', 'wait=soon', 'wait=1.5', 'until=never', 'wait=1&until=']) {
    const { status, body } = await get(`/jobs/q:a?${query}`)
    t.equal(status, 400, query)
    t.match(body.json().errors, [{ pointer: /^\?(wait|until)$/, detail: /./ }], query)
  }
  t.equal((await post('/jobs?wait=99', { queue: 'q', name: 'n' })).status, 400)
})
