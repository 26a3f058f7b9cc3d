/** `GET /jobs/:id/events` with a real EventSource: every event once, in order, to the end of the job. */
import { request } from 'node:http'
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { follow, listen } from '../../helpers/sse.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const url = await listen(app)
  const queue = new Queue('q', { connection: redis.client, prefix: app.prefix })
  const take = async () => {
    const worker = new Worker('q', null, { connection, prefix: app.prefix, autorun: false })
    t.teardown(() => worker.close(true))
    return (await worker.getNextJob('token'))!
  }
  const subscribers = async () => (await app.http.inject('/stats')).json().events.subscribers as number
  return { app, url, queue, take, subscribers, job: `${url}/jobs/q:a/events` }
}

t.test('a job is followed from its snapshot to its end, and no further', async (t) => {
  const { queue, take, job, subscribers } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  await queue.add('n', {}, { jobId: 'b' })
  const following = follow(t, job)
  t.match((await following.next('snapshot')).data, { id: 'q:a', state: 'waiting' })
  const taken = await take()
  t.match(await following.next('state'), {
    id: /^\d+-\d+$/,
    data: { id: 'q:a', queue: 'q', at: /Z$/, state: 'active', previous: 'waiting' },
  })
  await taken.updateProgress({ step: 1 })
  t.match((await following.next('progress')).data, { id: 'q:a', progress: { step: 1 } })
  await (await take()).moveToCompleted('b', 'token', false)
  await taken.moveToCompleted({ sum: 3 }, 'token', false)
  t.match((await following.next('state')).data, {
    state: 'completed',
    previous: 'active',
    result: { sum: 3 },
  })
  await eventually(() => following.state() === 2)
  t.notOk(
    following.received.some(({ data }) => data['id'] === 'q:b'),
    'no event of another job',
  )
  t.match(following.errors, [undefined, 204], 'it reconnected once and got 204')
  await eventually(async () => (await subscribers()) === 0)
})

t.test('a job that fails after a retry sends each state, and the error with the last', async (t) => {
  const { app, queue, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a', attempts: 2, backoff: 10 })
  const following = follow(t, job)
  await following.next('snapshot')
  const worker = new Worker('q', async ({ attemptsMade }) => fail(`attempt ${attemptsMade}`), {
    connection,
    prefix: app.prefix,
  })
  t.teardown(() => worker.close())
  await eventually(() => following.state() === 2)
  const states = following.received.filter(({ event }) => event === 'state').map(({ data }) => data)
  t.same(
    states.map(({ state }) => state),
    ['active', 'delayed', 'waiting', 'active', 'failed'],
  )
  t.match(states[1], { delayedUntil: /Z$/ })
  t.match(states[4], { error: { message: 'attempt 1' } })
})

function fail(reason: string): never {
  throw new Error(reason)
}

t.test('the stream of a removed or finished job ends', async (t) => {
  const { queue, take, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const removed = follow(t, job)
  await removed.next('snapshot')
  await queue.remove('a')
  t.match((await removed.next('removed')).data, { id: 'q:a' })
  await eventually(() => removed.state() === 2)
  t.match(removed.errors, [undefined, 404], 'it reconnected and got 404')
  await queue.add('n', {}, { jobId: 'a' })
  await (await take()).moveToCompleted(1, 'token', false)
  const over = follow(t, job)
  t.match((await over.next('snapshot')).data, { state: 'completed', result: 1 })
  await eventually(() => over.state() === 2)
  t.equal(over.received.length, 1)
})

t.test('a missing job is a problem, not a stream', async (t) => {
  const { url } = await open(t)
  for (const id of ['q:none', 'q:..', 'nowhere:x']) {
    const answer = await fetch(`${url}/jobs/${id}/events`)
    t.equal(answer.status, 404)
    t.match(await answer.json(), { code: 'JOB_NOT_FOUND' })
  }
})

t.test('a client that reconnects receives exactly the events that it missed', async (t) => {
  const { queue, take, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const first = follow(t, job)
  await first.next('snapshot')
  const taken = await take()
  const { id } = await first.next('state')
  first.close()
  for (let i = 1; i <= 5; i++) await taken.updateProgress(i)
  const second = follow(t, job, id)
  await eventually(() => second.received.length >= 5)
  await taken.updateProgress(6)
  await taken.moveToCompleted(1, 'token', false)
  await eventually(() => second.state() === 2)
  t.same(
    second.received.map(({ event, data }) => (event === 'progress' ? data['progress'] : data['state'])),
    [1, 2, 3, 4, 5, 6, 'completed'],
  )
  const all = [...first.received, ...second.received].map((one) => one.id)
  t.equal(new Set(all).size, all.length, 'no event twice')
  const third = follow(t, job, second.received.at(-1)!.id)
  await eventually(() => third.state() === 2)
  t.same(third.received, [], 'a client that had seen the end receives nothing')
  t.same(third.errors, [204])
})

t.test('events that are no longer available are a gap, followed by a snapshot', async (t) => {
  const { app, queue, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const [first] = await redis.client.xrange(`${app.prefix}:q:events`, '-', '+')
  await (await queue.getJob('a'))!.updateProgress(50)
  await redis.client.xtrim(`${app.prefix}:q:events`, 'MAXLEN', 1)
  for (const lastEventId of [first![0], 'nonsense', '99999999999999-0']) {
    const following = follow(t, job, lastEventId)
    t.match((await following.next('gap')).data, { reason: 'expired' }, lastEventId)
    t.match((await following.next('snapshot')).data, { progress: 50 })
    t.equal(following.received.length, 2)
    following.close()
  }
})

t.test('a flush ends the stream: the job is gone', async (t) => {
  const { queue, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const following = follow(t, job)
  await following.next('snapshot')
  await redis.client.flushall()
  const flushedAt = performance.now()
  await eventually(() => following.state() === 2, 15_000)
  t.ok(performance.now() - flushedAt < 10_000)
  t.equal(following.errors.at(-1), 404)
})

t.test('cleaning the queue ends the stream of a removed job', async (t) => {
  const { queue, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const following = follow(t, job)
  await following.next('snapshot')
  await queue.clean(0, 100, 'wait')
  await eventually(() => following.state() === 2, 15_000)
  t.equal(following.errors.at(-1), 404)
})

t.test('after lost Redis connections no event is missed or sent twice', async (t) => {
  const { queue, take, job } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const following = follow(t, job)
  await following.next('snapshot')
  const taken = await take()
  for (let i = 1; i <= 100; i++) {
    await taken.updateProgress(i)
    if (i % 40 === 0) await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  }
  await taken.moveToCompleted(1, 'token', false).catch(() => {})
  await eventually(() => following.received.some(({ data }) => data['state'] === 'completed'))
  t.same(
    following.received.filter(({ event }) => event === 'progress').map(({ data }) => data['progress']),
    Array.from({ length: 100 }, (_, i) => i + 1),
  )
})

t.test('a hundred clients follow one job, and each receives its end', async (t) => {
  const { queue, take, job, subscribers } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const all = Array.from({ length: 100 }, () => follow(t, job))
  await eventually(() => all.every(({ received }) => received.length === 1))
  t.equal(await subscribers(), 100)
  await (await take()).moveToCompleted(1, 'token', false)
  await eventually(() => all.every(({ received }) => received.at(-1)?.data['state'] === 'completed'))
  await eventually(async () => (await subscribers()) === 0)
})

t.test('a job that finishes while clients connect is reported as finished, once', async (t) => {
  const { app, url, queue } = await open(t)
  const worker = new Worker('q', async () => 1, { connection, prefix: app.prefix })
  t.teardown(() => worker.close())
  const keys = Array.from({ length: 40 }, (_, i) => `k${i}`)
  await queue.addBulk(keys.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const all = keys.map((key) => follow(t, `${url}/jobs/q:${key}/events`))
  await eventually(() => all.every(({ state }) => state() === 2))
  for (const { received } of all) {
    t.equal(received[0]?.event, 'snapshot')
    t.equal(received.filter(({ data }) => data['state'] === 'completed').length, 1)
    t.equal(received.at(-1)?.data['state'], 'completed')
  }
})

t.test('HEAD is answered at once, not held open', async (t) => {
  const { queue, url } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const status = await new Promise((resolve, reject) => {
    request(`${url}/jobs/q:a/events`, { method: 'HEAD', timeout: 3_000 }, (answer) =>
      resolve(answer.statusCode),
    )
      .on('error', reject)
      .on('timeout', () => reject(new Error('held')))
      .end()
  })
  t.equal(status, 405)
})
