/** Leases beyond one process and one request: other replicas, restarts, native workers, and the cost of idle workers. */
import { connect } from 'node:net'
import { Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, type TestApp } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'
import { connectionTo, openWork, settle, take } from './client.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = connectionTo(redis)
const SECRET = 's'.repeat(32)
const open = (t: Test, settings: Record<string, string> = {}) => openWork(t, redis, { SECRET, ...settings })
const sent = async (app: TestApp) =>
  (await app.http.inject('/stats')).json().commandsSent as Record<string, number>

t.test('a lease is valid at another replica, and after the secret has been replaced', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { app, queue } = await open(t, { QUEUE_PREFIX })
  await queue.addBulk(['a', 'b', 'c'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const [a, b, c] = (await take(app, { max: 3 })).body.jobs
  const other = await open(t, { QUEUE_PREFIX })
  t.equal((await settle(other.app, [{ lease: a.lease, outcome: 'complete', result: 1 }])).status, 200)
  const later = await open(t, { QUEUE_PREFIX, SECRET: `${'n'.repeat(32)},${SECRET}` })
  t.equal((await settle(later.app, [{ lease: b.lease, outcome: 'complete', result: 2 }])).status, 200)
  t.same([(await queue.getJob('a'))?.returnvalue, (await queue.getJob('b'))?.returnvalue], [1, 2])
  const foreign = await open(t, { QUEUE_PREFIX, SECRET: 'x'.repeat(32) })
  t.match(await settle(foreign.app, [{ lease: c.lease, outcome: 'complete' }]), {
    status: 207,
    body: { results: [{ status: 422, error: { code: 'INVALID_LEASE' } }] },
  })
})

t.test('a job leased by a killed process is recovered by a replica with a pending take', async (t) => {
  const QUEUE_PREFIX = uniquePrefix()
  const { app, queue } = await open(t, { QUEUE_PREFIX })
  // What a killed process leaves behind: an active job whose lock expires.
  await queue.add('n', { n: 1 }, { jobId: 'a' })
  const dead = new Worker('q', null, { connection, prefix: app.prefix, autorun: false, lockDuration: 1_500 })
  const job = await dead.getNextJob('token')
  t.equal(job?.id, 'a')
  await dead.close()
  const began = performance.now()
  const { body } = await take(app, { wait: 20 })
  t.match(body.jobs, [{ id: 'q:a', data: { n: 1 } }])
  const ms = performance.now() - began
  t.ok(ms > 1_000 && ms < 6_500, `${Math.round(ms)} ms`)
})

t.test('workers that poll an empty queue send no commands', async (t) => {
  const { app, queue } = await open(t)
  t.equal((await take(app, { wait: 1 })).status, 204)
  const before = await sent(app)
  for (let round = 0; round < 20; round++) t.equal((await take(app)).status, 204)
  t.equal((await take(app, { wait: 1 })).status, 204)
  const after = await sent(app)
  for (const label of ['takeLeases', 'recoverStalled']) t.equal(after[label], before[label], label)
  await queue.add('n', {}, { jobId: 'a' })
  await eventually(async () => (await take(app)).status === 200)
})

t.test(
  'one round trip per job: settle with next is one command, whether a job is found or not',
  async (t) => {
    const { app, queue } = await open(t)
    await queue.addBulk(['a', 'b'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
    let { jobs } = (await take(app)).body
    const before = await sent(app)
    for (const left of [1, 0]) {
      const { body } = await settle(app, [{ lease: jobs[0].lease, outcome: 'complete' }], { max: 1 })
      jobs = body.jobs
      t.equal(jobs.length, left)
    }
    const after = await sent(app)
    t.equal(after['settleLeases']! - (before['settleLeases'] ?? 0), 2)
    t.equal(after['takeLeases'], before['takeLeases'])
  },
)

t.test('native workers and HTTP workers share a queue, and each job is worked once', async (t) => {
  const { app, queue } = await open(t)
  const worked: string[] = []
  const worker = new Worker('q', async ({ id }) => void worked.push(id!), { connection, prefix: app.prefix })
  t.teardown(() => worker.close())
  const COUNT = 300
  await queue.addBulk(
    Array.from({ length: COUNT }, (_, i) => ({ name: 'n', data: {}, opts: { jobId: `j${i}` } })),
  )
  let byHttp = 0
  let { jobs } = (await take(app, { max: 5 })).body ?? { jobs: [] }
  while (jobs.length > 0) {
    for (const { id } of jobs) worked.push(id.slice(2))
    byHttp += jobs.length
    const items = jobs.map(({ lease }: { lease: string }) => ({ lease, outcome: 'complete' }))
    const settled = await settle(app, items, { max: 5 })
    t.equal(settled.status, 200)
    jobs = settled.body.jobs
  }
  await eventually(async () => (await queue.getCompletedCount()) === COUNT)
  t.equal(new Set(worked).size, COUNT)
  t.equal(worked.length, COUNT)
  t.ok(byHttp > 0)
})

t.test('priorities and a global rate limit hold', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'second', priority: 5 })
  await queue.add('n', {}, { jobId: 'first', priority: 1 })
  await queue.add('n', {}, { jobId: 'plain' })
  const { body } = await take(app, { max: 3 })
  t.same(
    body.jobs.map(({ id }: { id: string }) => id),
    ['q:plain', 'q:first', 'q:second'],
  )
  await queue.setGlobalRateLimit(2, 1_000)
  await queue.addBulk(['a', 'b', 'c'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  t.equal((await take(app, { max: 3 })).body.jobs.length, 2)
  const began = performance.now()
  t.match((await take(app, { wait: 5 })).body.jobs, [{ id: 'q:c' }])
  t.ok(performance.now() - began > 500, 'after the rate limit')
})

t.test(
  'a backoff that only native workers can compute is refused, and a fail with a delay settles the job',
  async (t) => {
    const { app, queue } = await open(t)
    await queue.add('n', {}, { jobId: 'a', attempts: 3, backoff: { type: 'mine', delay: 5 } })
    const { lease } = (await take(app)).body.jobs[0]
    const refused = await settle(app, [{ lease, outcome: 'fail', error: { message: 'no' } }])
    t.match(refused, {
      status: 207,
      body: { results: [{ status: 422, error: { code: 'INVALID_OPTION', detail: /"mine".*"fail"/ } }] },
    })
    t.equal((await settle(app, [{ lease, outcome: 'fail', delay: 0 }])).status, 200)
  },
)

t.test('takes of large data stop early; jobs that do not reach the client whole are released', async (t) => {
  const { app, queue } = await open(t)
  const url = new URL(await app.http.listen({ host: '127.0.0.1', port: 0 }))
  // Larger than the buffers of both sockets.
  await queue.add('n', 'x'.repeat(20_000_000), { jobId: 'large' })
  const others = Array.from({ length: 9 }, (_, i) => ({
    name: 'n',
    data: 'x'.repeat(900_000),
    opts: { jobId: `j${i}` },
  }))
  await queue.addBulk(others)
  // A client that never reads.
  const socket = connect(Number(url.port), '127.0.0.1').pause()
  const body = '{"max":20}'
  const head = [
    'POST /queues/q/leases HTTP/1.1',
    'Host: localhost',
    'Content-Type: application/json',
    `Content-Length: ${body.length}`,
  ]
  socket.write(`${head.join('\r\n')}\r\n\r\n${body}`)
  await eventually(async () => (await queue.getActiveCount()) === 1)
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.equal(await queue.getActiveCount(), 1, 'one job of this size ends the take')
  socket.destroy()
  await eventually(async () => (await queue.getWaitingCount()) === 10)
  const [first] = (await take(app, { max: 1 })).body.jobs
  t.equal(first.id, 'q:large')
  t.equal((await take(app, { max: 9 })).body.jobs.length, 4, 'the take ends before it exceeds 4 MiB')
})
