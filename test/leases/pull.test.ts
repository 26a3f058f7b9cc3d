/** An HTTP worker takes jobs, extends their leases and settles them. */
import t, { type Test } from 'tap'
import { eventually } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { openWork, post, settle, take } from './client.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const open = (t: Test, settings?: Record<string, string>) => openWork(t, redis, settings)

t.test('jobs are taken in order, become active, and complete with their result', async (t) => {
  const { app, queue } = await open(t)
  await queue.addBulk(
    [1, 2, 3].map((n) => ({ name: `n${n}`, data: { n }, opts: { jobId: `j${n}`, attempts: 2 } })),
  )
  const { status, body } = await take(app, { max: 2, worker: 'me' })
  t.equal(status, 200)
  t.match(body.jobs, [
    { id: 'q:j1', name: 'n1', data: { n: 1 }, attempt: 1, attempts: 2, expiresAt: /^20/ },
    { id: 'q:j2', data: { n: 2 } },
  ])
  t.equal(await (await queue.getJob('j1'))?.getState(), 'active')
  t.equal((await queue.getJob('j1'))?.processedBy, 'me')
  const [one, two] = body.jobs
  const settled = await settle(
    app,
    [
      { lease: one.lease, outcome: 'complete', result: { ok: true } },
      { lease: two.lease, outcome: 'complete' },
    ],
    { max: 5 },
  )
  t.match(settled, {
    status: 200,
    body: {
      results: [
        { index: 0, status: 200, id: 'q:j1' },
        { index: 1, status: 200 },
      ],
    },
  })
  t.match(settled.body.jobs, [{ id: 'q:j3' }])
  t.match(await queue.getJob('j1'), { returnvalue: { ok: true }, attemptsMade: 1 })
  t.equal((await take(app)).status, 204)
})

t.test(
  'a failed job is retried after its backoff, then stays failed; an unrecoverable failure is final at once',
  async (t) => {
    const { app, queue } = await open(t)
    await queue.add('n', {}, { jobId: 'a', attempts: 3, backoff: { type: 'exponential', delay: 30 } })
    for (const attempt of [1, 2, 3]) {
      const { body } = await take(app, { wait: 2 })
      t.match(body.jobs, [{ id: 'q:a', attempt }])
      await settle(app, [
        {
          lease: body.jobs[0].lease,
          outcome: 'fail',
          error: { message: `no ${attempt}`, stack: 'Error: no\n at x' },
        },
      ])
    }
    const job = await queue.getJob('a')
    t.match(job, { failedReason: 'no 3', attemptsMade: 3 })
    t.equal(job?.stacktrace?.length, 3)
    t.equal(await job?.getState(), 'failed')
    await queue.add('n', {}, { jobId: 'b', attempts: 3 })
    const { body } = await take(app)
    await settle(app, [
      { lease: body.jobs[0].lease, outcome: 'fail', error: { message: 'never' }, unrecoverable: true },
    ])
    t.equal(await (await queue.getJob('b'))?.getState(), 'failed')
  },
)

t.test('retry and release put a job back and cost no attempt', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'a', attempts: 2 })
  const first = await take(app)
  await settle(app, [{ lease: first.body.jobs[0].lease, outcome: 'release' }])
  t.equal(await (await queue.getJob('a'))?.getState(), 'waiting')
  const second = await take(app)
  await settle(app, [{ lease: second.body.jobs[0].lease, outcome: 'retry', delay: 60_000 }])
  t.equal(await (await queue.getJob('a'))?.getState(), 'delayed')
  t.equal((await queue.getJob('a'))?.attemptsMade, 0)
})

t.test('released jobs keep their order', async (t) => {
  const { app, queue } = await open(t)
  await queue.addBulk(['a', 'b', 'c', 'd'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const { body } = await take(app, { max: 3 })
  await settle(
    app,
    body.jobs.map(({ lease }: { lease: string }) => ({ lease, outcome: 'release' })),
  )
  const again = await take(app, { max: 4 })
  t.same(
    again.body.jobs.map(({ id }: { id: string }) => id),
    ['q:a', 'q:b', 'q:c', 'q:d'],
  )
})

t.test('a lost lease changes nothing: 409 for this item alone', async (t) => {
  const { app, queue } = await open(t)
  await queue.addBulk(['a', 'b'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const { body } = await take(app, { max: 2 })
  const [a, b] = body.jobs
  await redis.client.set(`${app.prefix}:q:a:lock`, 'another')
  const settled = await settle(app, [
    { lease: a.lease, outcome: 'complete' },
    { lease: b.lease, outcome: 'complete' },
    { lease: `${b.lease}x`, outcome: 'complete' },
    { lease: b.lease, outcome: 'complete' },
  ])
  t.equal(settled.status, 207)
  t.match(settled.body.results, [
    { status: 409, id: 'q:a', error: { code: 'LEASE_LOST' } },
    { status: 200, id: 'q:b' },
    { status: 422, error: { code: 'INVALID_LEASE' } },
    { status: 409, error: { code: 'LEASE_LOST' } },
  ])
  const extended = await post(app, '/leases/extend', { items: [{ lease: a.lease, progress: 50, log: 'x' }] })
  t.match(extended, { status: 207, body: { results: [{ status: 409 }] } })
  t.equal((await queue.getJob('a'))?.progress, 0, 'nothing was written')
})

t.test('an extension prolongs the lease, and writes progress and log', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const { body } = await take(app, { leaseMs: 1_000 })
  const { lease } = body.jobs[0]
  const extended = await post(app, '/leases/extend', {
    items: [{ lease, leaseMs: 60_000, progress: 40, log: 'half way' }],
  })
  t.match(extended, { status: 200, body: { results: [{ index: 0, status: 200, expiresAt: /^20/ }] } })
  t.ok((await redis.client.pttl(`${app.prefix}:q:a:lock`)) > 50_000)
  t.equal((await queue.getJob('a'))?.progress, 40)
  t.same((await queue.getJobLogs('a')).logs, ['half way'])
})

t.test('a pending take gets a job as soon as it is added', async (t) => {
  const { app, queue } = await open(t)
  const waiting = take(app, { wait: 5 })
  await new Promise((resolve) => setTimeout(resolve, 200))
  const began = performance.now()
  await queue.add('n', {}, { jobId: 'late' })
  const { body } = await waiting
  t.match(body.jobs, [{ id: 'q:late' }])
  t.ok(performance.now() - began < 500, `${Math.round(performance.now() - began)} ms`)
})

t.test('a pending take gets a delayed job when it is due', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'd', delay: 300 })
  const { status, body } = await take(app, { wait: 3 })
  t.equal(status, 200)
  t.match(body.jobs, [{ id: 'q:d' }])
})

t.test('pending takes are served first come, first served', async (t) => {
  const { app, queue } = await open(t)
  const order: number[] = []
  const waiting = [0, 1, 2].map((n) => take(app, { wait: 5 }).then(() => order.push(n)))
  await new Promise((resolve) => setTimeout(resolve, 200))
  for (const jobId of ['a', 'b', 'c']) {
    await queue.add('n', {}, { jobId })
    await eventually(() => order.length === { a: 1, b: 2, c: 3 }[jobId])
  }
  await Promise.all(waiting)
  t.same(order, [0, 1, 2])
})

t.test(
  'a job whose lease expired goes to the next worker within five seconds; the first can no longer settle it',
  async (t) => {
    const { app, queue } = await open(t)
    await queue.add('n', {}, { jobId: 'a' })
    const first = await take(app, { leaseMs: 1_000 })
    const began = performance.now()
    const second = await take(app, { wait: 10 })
    t.match(second.body.jobs, [{ id: 'q:a', attempt: 1 }])
    const ms = performance.now() - began
    t.ok(ms > 900 && ms < 6_000, `${Math.round(ms)} ms`)
    t.match(await settle(app, [{ lease: first.body.jobs[0].lease, outcome: 'complete', result: 'stale' }]), {
      status: 207,
      body: { results: [{ status: 409, error: { code: 'LEASE_LOST' } }] },
    })
    t.equal(
      (await settle(app, [{ lease: second.body.jobs[0].lease, outcome: 'complete', result: 'good' }])).status,
      200,
    )
    t.equal((await queue.getJob('a'))?.returnvalue, 'good')
  },
)

t.test('a job that stalls twice fails and is not handed out again', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  await take(app, { leaseMs: 1_000 })
  t.equal((await take(app, { wait: 10, leaseMs: 1_000 })).status, 200)
  t.equal((await take(app, { wait: 6 })).status, 204)
  const job = await queue.getJob('a')
  t.equal(await job?.getState(), 'failed')
  t.match(job?.failedReason, /stalled more than allowable limit/)
})

t.test('a client that disconnects while it waits takes no job', async (t) => {
  const { app, queue } = await open(t)
  const url = await app.http.listen({ host: '127.0.0.1', port: 0 })
  const send = (signal: AbortSignal) =>
    fetch(`${url}/queues/q/leases`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"wait":10}',
      signal,
    })
  const gone = new AbortController()
  const waits = send(gone.signal).catch(() => 'disconnected')
  await new Promise((resolve) => setTimeout(resolve, 200))
  gone.abort()
  t.equal(await waits, 'disconnected')
  await queue.add('n', {}, { jobId: 'a' })
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.equal(await (await queue.getJob('a'))?.getState(), 'waiting')
  t.match((await take(app)).body.jobs, [{ id: 'q:a' }])
})

t.test('a pending take gets 204 when the service shuts down', async (t) => {
  const { app } = await open(t)
  const url = await app.http.listen({ host: '127.0.0.1', port: 0 })
  const waits = fetch(`${url}/queues/q/leases`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"wait":20}',
  })
  await new Promise((resolve) => setTimeout(resolve, 200))
  const began = performance.now()
  await app.http.close()
  t.equal((await waits).status, 204)
  t.ok(performance.now() - began < 3_000)
})

t.test('a paused queue hands out nothing until it is resumed; a global concurrency holds', async (t) => {
  const { app, queue } = await open(t)
  await queue.addBulk(['a', 'b', 'c'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  await queue.pause()
  t.equal((await take(app, { max: 3 })).status, 204)
  const waiting = take(app, { wait: 5, max: 3 })
  await new Promise((resolve) => setTimeout(resolve, 200))
  await queue.setGlobalConcurrency(2)
  await queue.resume()
  const { body } = await waiting
  t.equal(body.jobs.length, 2)
  const third = take(app, { wait: 5 })
  await settle(app, [{ lease: body.jobs[0].lease, outcome: 'complete' }])
  t.match((await third).body.jobs, [{ id: 'q:c' }])
})
