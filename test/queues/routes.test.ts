/** `GET /queues/:queue/events`, with a real EventSource: every event of a queue, in order, without gaps. */
import { connect, type Socket } from 'node:net'
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'
import { follow, listen, type ReceivedEvent } from '../helpers/sse.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const url = await listen(app)
  const queue = new Queue('q', { connection: redis.client, prefix: app.prefix })
  return { app, url, queue, events: `${url}/queues/q/events` }
}

const subscribers = async (app: TestApp) =>
  (await app.http.inject('/stats')).json().events.subscribers as number

/** The ids in the queue's stream, which a follower should have received. */
async function idsInStream(prefix: string): Promise<string[]> {
  return (await redis.client.xrange(`${prefix}:q:events`, '-', '+')).map(([id]) => id)
}

t.test('a follower receives a snapshot, then each event once and in order', async (t) => {
  const { app, queue, events } = await open(t)
  await queue.add('n', {}, { jobId: 'before' })
  const following = follow(t, events)
  const snapshot = await following.next('snapshot')
  t.match(snapshot.data, { queue: 'q', counts: { waiting: 1, active: 0, completed: 0 } })
  await queue.add('n', {}, { jobId: 'a' })
  await queue.add('n', {}, { jobId: 'later', delay: 60_000 })
  await queue.add('n', {}, { jobId: 'urgent', priority: 1 })
  await queue.add('n', {}, { jobId: 'twin', deduplication: { id: 'd' } })
  await queue.add('n', {}, { jobId: 'other', deduplication: { id: 'd' } })
  await queue.pause()
  await queue.resume()
  const worker = new Worker(
    'q',
    async (job) => {
      await job.updateProgress(50)
      if (job.id === 'a') throw new Error('no')
    },
    { connection, prefix: app.prefix },
  )
  t.teardown(() => worker.close())
  const ended = ({ data }: ReceivedEvent) => data['state'] === 'completed' || data['state'] === 'failed'
  await eventually(() => following.received.filter(ended).length === 4)
  await queue.remove('later')
  await eventually(() => following.received.some(({ event }) => event === 'removed'))
  const afterSnapshot = following.received.slice(1)
  const all = await idsInStream(app.prefix)
  t.same(
    afterSnapshot.map(({ id }) => id),
    all.filter((id) => !all.slice(0, all.indexOf(snapshot.id) + 1).includes(id)),
  )
  for (const [event, data] of [
    ['added', { id: 'q:a', name: 'n' }],
    ['state', { id: 'q:later', state: 'delayed', delayedUntil: /Z$/ }],
    ['deduplicated', { id: 'q:twin', deduplicationId: 'd', deduplicatedId: 'q:other' }],
    ['paused', { id: undefined, queue: 'q' }],
    ['state', { id: 'q:a', state: 'failed', error: { message: 'no' } }],
    ['state', { id: 'q:urgent', state: 'completed', result: null }],
    ['progress', { id: 'q:twin', progress: 50 }],
    ['removed', { id: 'q:later' }],
  ] as [string, Record<string, unknown>][]) {
    const found = afterSnapshot.find((one) => one.event === event && isSameJob(one.data, data))
    t.match(found?.data, data, `${event} ${data['id'] ?? ''}`)
  }
})

/** The same job, and the same state if one is given. */
function isSameJob(data: Record<string, unknown>, wanted: Record<string, unknown>): boolean {
  return data['id'] === wanted['id'] && (wanted['state'] === undefined || data['state'] === wanted['state'])
}

t.test('a client that missed a thousand events receives them all, in order', async (t) => {
  const { app, queue, events } = await open(t)
  const first = follow(t, events)
  await first.next('snapshot')
  await queue.add('n', {}, { jobId: 'first' })
  const { id } = await first.next('state')
  first.close()
  for (let i = 0; i < 6; i++) {
    await queue.addBulk(
      Array.from({ length: 100 }, (_, k) => ({ name: 'n', data: {}, opts: { jobId: `k${i}-${k}` } })),
    )
  }
  const second = follow(t, events, id)
  // More events happen while the missed ones are sent.
  for (let i = 0; i < 50; i++) await queue.add('n', {}, { jobId: `m${i}` })
  const all = await idsInStream(app.prefix)
  await eventually(() => second.received.at(-1)?.id === all.at(-1))
  t.same(
    second.received.map((one) => one.id),
    all.slice(all.indexOf(id) + 1),
  )
  t.ok(second.received.length > 1_200)
})

t.test('a client that missed large events receives them all, at its own pace', async (t) => {
  const { queue, events } = await open(t)
  const job = await queue.add('n', {})
  const first = follow(t, events)
  const { id } = await first.next('snapshot')
  first.close()
  for (let i = 0; i < 600; i++) await job.updateProgress({ i, text: 'x'.repeat(10_000) })
  const second = follow(t, events, id)
  await eventually(() => second.received.filter(({ event }) => event === 'progress').length === 600, 20_000)
  t.same(second.errors, [])
})

t.test('two replicas send the same events, and a client may move between them', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const one = await open(t, { QUEUE_PREFIX })
  const two = await open(t, { QUEUE_PREFIX })
  const [atOne, atTwo] = [follow(t, one.events), follow(t, two.events)]
  await Promise.all([atOne.next('snapshot'), atTwo.next('snapshot')])
  for (let i = 0; i < 20; i++) await one.queue.add('n', {}, { jobId: `k${i}` })
  const all = await idsInStream(QUEUE_PREFIX)
  await eventually(() => [atOne, atTwo].every(({ received }) => received.at(-1)?.id === all.at(-1)))
  t.same(atOne.received.slice(1), atTwo.received.slice(1))
  atOne.close()
  await two.queue.add('n', {}, { jobId: 'last' })
  const moved = follow(t, two.events, all.at(-1))
  t.match((await moved.next('added')).data, { id: 'q:last' })
})

t.test('a client that disconnects is unsubscribed at once', async (t) => {
  const { app, events } = await open(t)
  const all = Array.from({ length: 10 }, () => follow(t, events))
  await Promise.all(all.map((following) => following.next('snapshot')))
  t.equal(await subscribers(app), 10)
  const leftAt = performance.now()
  for (const following of all) following.close()
  await eventually(async () => (await subscribers(app)) === 0)
  t.ok(performance.now() - leftAt < 1_000)
})

t.test('on shutdown each stream ends in order, and the service stops at once', async (t) => {
  const { app, url } = await open(t)
  const answers = await Promise.all(Array.from({ length: 5 }, () => fetch(`${url}/queues/q/events`)))
  const texts = answers.map((answer) => answer.text())
  // fetch() opens more connections than it uses; they must not delay the shutdown.
  const idle = connect(Number(new URL(url).port), '127.0.0.1')
  await new Promise((resolve) => idle.once('connect', resolve))
  const began = performance.now()
  await app.http.close()
  t.ok(performance.now() - began < 2_000, `${performance.now() - began} ms`)
  for (const text of await Promise.all(texts)) t.match(text, /^retry: 2000\n\nid: .*\nevent: snapshot\n/)
})

t.test('a client that does not read is disconnected, and others continue', async (t) => {
  const { app, url, queue, events } = await open(t, { SSE_MAX_BUFFERED: '65536' })
  const following = follow(t, events)
  await following.next('snapshot')
  const { port } = new URL(url)
  const sockets: Socket[] = []
  app.http.server.on('connection', (socket) => sockets.push(socket))
  const slow = connect(Number(port), '127.0.0.1')
  slow.on('error', () => {})
  slow.write('GET /queues/q/events HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await eventually(async () => (await subscribers(app)) === 2)
  slow.pause()
  const served = sockets.find(({ remotePort }) => remotePort === slow.localPort)!
  const job = await queue.add('n', {})
  // The kernel buffers some megabytes before the service does.
  for (let i = 0; i < 1_000 && !served.destroyed; i++) {
    await Promise.all(Array.from({ length: 5 }, () => job.updateProgress({ text: 'x'.repeat(20_000) })))
  }
  await eventually(() => served.destroyed)
  await job.updateProgress({ text: 'last' })
  await eventually(() => JSON.stringify(following.received.at(-1)?.data['progress']) === '{"text":"last"}')
  slow.destroy()
})

t.test('an invalid queue name is refused', async (t) => {
  const { url } = await open(t)
  for (const name of ['a:b', 'a%3Ab', ':', '%3A', 'x'.repeat(513)]) {
    const answer = await fetch(`${url}/queues/${name}/events`)
    t.equal(answer.status, 422, name.slice(0, 10))
    t.match(await answer.json(), { code: 'INVALID_NAME' })
  }
})

t.test('a queue without jobs can be followed', async (t) => {
  const { queue, events } = await open(t)
  const following = follow(t, events)
  t.match((await following.next('snapshot')).data, { counts: { waiting: 0 } })
  await queue.add('n', {}, { jobId: 'a' })
  t.match((await following.next('added')).data, { id: 'q:a' })
})
