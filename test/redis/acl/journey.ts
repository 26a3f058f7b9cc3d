/**
 * Uses every route and option that reaches Redis, except those of workers (worker-journey.ts), to show that
 * they are allowed. Their results are tested elsewhere.
 */
import { Worker } from 'bullmq'
import type { Test } from 'tap'
import type { TestApp } from '../../helpers/app.ts'
import { follow, listen } from '../../helpers/sse.ts'
import { untilBlocked } from '../../helpers/streams.ts'
import { post, type Server } from './server.ts'

export async function journey(t: Test, app: TestApp, { admin, connection }: Server): Promise<void> {
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

  // A job that fails halfway is rolled back
  for (const queue of ['damaged', 'damaged2']) {
    await admin.set(`bull:${queue}:marker`, 'no sorted set')
    await admin.lpush(`bull:${queue}:wait`, 'other')
  }
  await add({ jobId: 'a' }, 503, 'damaged')
  await add({ jobId: 'a', lifo: true, deduplication: { id: 'd' } }, 503, 'damaged2')

  // Reading
  await admin.rpush('bull:q:plain:logs', 'a line')
  await get('/jobs/q:plain?include=data,logs')
  // The fields of a large job are measured one by one.
  const large = { queue: 'large', name: 'n', data: 'x'.repeat(10_000), opts: { jobId: 'k' } }
  await post(app, '/jobs', large)
  await get('/jobs/large:k?include=data')
  await get('/jobs?queue=large')
  await get('/jobs?ids=q:plain,q:later,q:first,busy:running,other:x')
  for (const state of ['waiting', 'delayed', 'prioritized', 'active', 'failed', 'completed']) {
    await get(`/jobs?queue=q&state=${state}`)
  }
  for (const state of ['waiting', 'delayed', 'prioritized']) {
    const { jobs, cursor } = await get(`/jobs?queue=q&state=${state}&limit=1`)
    await get(`/jobs?queue=q&state=${state}&limit=1&cursor=${cursor}`)
    // The job of the cursor is gone, so its position has to be found.
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
  await get('/jobs?queue=other&state=waiting&limit=1')
  // The jobs around it are gone as well.
  const { cursor } = await get('/jobs?queue=q&state=waiting&limit=1')
  await admin.del('bull:q:wait')
  await get(`/jobs?queue=q&state=waiting&limit=1&cursor=${cursor}`)

  // Following, and waiting
  const url = await listen(app)
  const [first] = await admin.xrange('bull:q:events', '-', '+', 'COUNT', 1)
  const whole = follow(t, `${url}/queues/q/events`, first![0])
  await whole.next('added')
  await untilBlocked(admin)
  // Reading the counts of a queue removes a marker left by an old version of BullMQ
  await admin.rpush('bull:other:wait', '0:0')
  await follow(t, `${url}/queues/other/events`).next('snapshot')
  await follow(t, `${url}/jobs/q:first/events`).next('snapshot')
  const worker = new Worker('work', async () => 'done', { connection })
  t.teardown(() => worker.close())
  const done = await post(app, '/jobs?wait=10', { queue: 'work', name: 'n', opts: { jobId: 'w' } })
  t.match(done, { status: 201, body: { state: 'completed', result: 'done' } })
  await get('/jobs/work:w?wait=5')

  // Health and statistics; those counts skip such a marker
  await admin.rpush('bull:other:wait', '0:0')
  for (const path of ['/health', '/health/live', '/health/ready', '/health/redis', '/stats']) await get(path)
}
