/** Event streams over real sockets while entries are large or malformed: nothing is lost, and little is held. */
import { type IncomingMessage, request } from 'node:http'
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { follow, listen } from '../../helpers/sse.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, { SSE_MAX_BUFFERED: '67108864', ...settings })
  t.teardown(() => app.http.close())
  const url = await listen(app)
  const stream = `${app.prefix}:q:events`
  const queue = new Queue('q', { connection: client, prefix: app.prefix, skipMetasUpdate: true })
  const complete = (jobId: string, returnvalue: string) =>
    client.xadd(
      stream,
      '*',
      'event',
      'completed',
      'jobId',
      jobId,
      'prev',
      'active',
      'returnvalue',
      returnvalue,
    )
  return { app, url, stream, queue, complete }
}

t.test(
  'a client that missed many large results receives each, and no more is read than it takes',
  async (t) => {
    const { url, queue, complete } = await open(t)
    await queue.add('n', {}, { jobId: 'a' })
    const first = (await complete('a', '0'))!
    const large = JSON.stringify('x'.repeat(500_000))
    await Promise.all(Array.from({ length: 100 }, (_, i) => complete(`k${i}`, large)))
    const sent = async () => Number(/total_net_output_bytes:(\d+)/.exec(await client.info('stats'))?.[1])
    const before = await sent()
    const response = await new Promise<IncomingMessage>((resolve) => {
      const started = request(`${url}/queues/q/events`, { headers: { 'last-event-id': first } }, resolve)
      t.teardown(() => started.destroy())
      started.end()
    })
    // The response is not read, so the sockets' buffers fill and the replay stops.
    let last = -1
    await eventually(async () => {
      const now = await sent()
      const isStill = now - last < 10_000 && now > before + 500_000
      last = now
      if (!isStill) await new Promise((resolve) => setTimeout(resolve, 300))
      return isStill
    })
    t.ok(last - before < 15_000_000, `Redis sent ${last - before} of 50,000,000 bytes`)
    let received = 0
    let names = ''
    for await (const chunk of response as AsyncIterable<Buffer>) {
      received += chunk.length
      names += chunk.toString('latin1').replace(/x{100,}/g, '')
      if (received > 50_000_000) break
    }
    t.same(
      [...names.matchAll(/"id":"q:(k\d+)"/g)].map(([, key]) => key),
      Array.from({ length: 100 }, (_, i) => `k${i}`),
    )
  },
)

t.test('a result beyond MAX_ANSWER_BYTES is left out and named, live and on return', async (t) => {
  const { url, queue, complete } = await open(t, { MAX_ANSWER_BYTES: '65536' })
  await queue.add('n', {}, { jobId: 'a' })
  const live = follow(t, `${url}/queues/q/events`)
  await live.next('snapshot')
  const first = (await complete('a', '0'))!
  await complete('b', JSON.stringify('x'.repeat(70_000)))
  await complete('c', '{"sent":true}')
  const returned = follow(t, `${url}/queues/q/events`, first)
  await live.next('state')
  for (const following of [live, returned]) {
    const large = (await following.next('state')).data
    t.match(large, { id: 'q:b', state: 'completed', omitted: ['result'] })
    t.notOk('result' in large)
    t.match((await following.next('state')).data, { id: 'q:c', result: { sent: true } })
  }
})

t.test('malformed entries disturb neither the stream nor the cached statuses', async (t) => {
  const { app, url, stream, queue, complete } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const [[first]] = (await client.xrevrange(stream, '+', '-', 'COUNT', 1)) as [[string, string[]]]
  const ofQueue = follow(t, `${url}/queues/q/events`)
  const ofJob = follow(t, `${url}/jobs/q:a/events`)
  await ofQueue.next('snapshot')
  await ofJob.next('snapshot')
  await client.xadd(stream, '*', 'jobId', 'a')
  await client.xadd(stream, '*', 'event', '')
  await client.xadd(stream, '*', 'event', 'active', 'jobId', '')
  await client.xadd(stream, '*', 'event', 'active', 'jobId', 'x\n\nevent: state\ndata: 1', 'prev', 'y\r\n')
  await client.xadd(stream, '*', 'event', 'x\ny', 'event', 'progress', 'jobId', 'b', 'data', '{oops')
  await client.xadd(stream, '*', '__proto__', 'z', 'event', 'drained', 'count', 'many')
  await complete('b', '[[[oops')
  const nested = '['.repeat(100_000) + ']'.repeat(100_000)
  await complete('c', nested)
  await complete('a', '{\n"sent":\n1}')
  t.match((await ofJob.next('state')).data, { id: 'q:a', state: 'completed', result: { sent: 1 } })
  await eventually(() =>
    ofQueue.received.some(({ data }) => data['id'] === 'q:a' && data['state'] === 'completed'),
  )
  const live = ofQueue.received.slice(1)
  t.same(
    live.map(({ data }) => data['id']),
    ['q:', 'q:x\n\nevent: state\ndata: 1', 'q:b', undefined, 'q:b', 'q:c', 'q:a'],
  )
  t.match(live[2]!.data, { progress: '{oops' })
  t.equal(live[5]!.data['result'], nested)
  const returned = follow(t, `${url}/queues/q/events`, first)
  await eventually(() => returned.received.length === live.length)
  t.same(returned.received, live)
  t.match((await app.http.inject('/jobs/q:a')).json(), { state: 'waiting' })
  t.equal((await app.http.inject('/stats')).json().events.status, 'live')
})
