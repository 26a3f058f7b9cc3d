/** The job routes over HTTP: what a client sends, the response, and what Redis then contains. */
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

type App = Awaited<ReturnType<typeof startApp>>

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const post = (url: string, payload: unknown, headers: Record<string, string> = {}) =>
    app.http.inject({
      method: 'POST',
      url,
      headers: { 'content-type': 'application/json', ...headers },
      payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
    })
  const get = (url: string, headers: Record<string, string> = {}) =>
    app.http.inject({ method: 'GET', url, headers })
  const queue = (name: string) => new Queue(name, { connection: redis.client, prefix: app.prefix })
  return { app, post, get, queue }
}

/** Processes one job of the queue with a native worker, and waits until it has finished. */
async function work(app: App, name: string, processor: () => Promise<unknown>): Promise<void> {
  const connection = { path: redis.socket, maxRetriesPerRequest: null }
  const worker = new Worker(name, processor, { connection, prefix: app.prefix })
  await new Promise((resolve) => {
    worker.once('completed', resolve)
    worker.once('failed', resolve)
  })
  await worker.close()
}

t.test('an acknowledged job is in Redis, and the response describes it', async (t) => {
  const { post, get, queue } = await open(t)
  const response = await post('/jobs', {
    queue: 'emails',
    name: 'welcome',
    data: { to: 'ann' },
    opts: { attempts: 3 },
  })
  t.equal(response.statusCode, 201)
  const body = response.json()
  t.match(body, { queue: 'emails', name: 'welcome', state: 'waiting', deduplicated: false })
  t.match(body.id, /^emails:[0-9a-f-]{36}$/)
  t.notOk('data' in body, 'the response does not repeat the data')
  t.equal(response.headers['location'], `/jobs/${body.id}`)
  const job = await queue('emails').getJob(body.id.slice('emails:'.length))
  t.same(job?.data, { to: 'ann' })
  t.equal(job?.opts.attempts, 3)
  const read = await get(response.headers['location'] as string)
  t.equal(read.headers['etag'], response.headers['etag'], 'the ETag is that of the resource')
  t.equal(read.json().createdAt, body.createdAt)
})

t.test('the ETag of a stored job is that of its resource, for any options', async (t) => {
  const { post, get } = await open(t)
  for (const opts of [
    { delay: 60_000 },
    { priority: 5, attempts: 2 },
    { deduplication: { id: 'x' } },
    { lifo: true },
  ]) {
    const response = await post('/jobs', { name: 'n', opts })
    t.equal(
      (await get(`/jobs/${response.json().id}`)).headers['etag'],
      response.headers['etag'],
      JSON.stringify(opts),
    )
  }
})

t.test('jobs that are stored together each have the ETag of their own resource', async (t) => {
  const { post, get } = await open(t)
  const names = ['a', 'b']
  const options = [
    {},
    { priority: 1 },
    { priority: 2 },
    { delay: 60_000 },
    { attempts: 2 },
    { deduplication: { id: 'd' } },
  ]
  const jobs = names.flatMap((name) =>
    options.flatMap((opts) => [
      { name, opts },
      { name, opts },
    ]),
  )
  const responses = await Promise.all(jobs.map((job) => post('/jobs', job)))
  for (const [i, response] of responses.entries()) {
    if (response.statusCode !== 201) continue
    const { headers } = await get(`/jobs/${response.json().id}`)
    t.equal(headers['etag'], response.headers['etag'], JSON.stringify(jobs[i]))
  }
})

t.test('a job without a queue is stored in the default queue, and a key alone finds it', async (t) => {
  const { post, get } = await open(t, { DEFAULT_QUEUE: 'main' })
  t.equal((await post('/jobs', { name: 'n', opts: { jobId: 'k' } })).json().id, 'main:k')
  t.equal((await get('/jobs/k')).json().id, 'main:k')
})

t.test('a repeated key stores nothing and returns the existing job, with its state', async (t) => {
  const { app, post, queue } = await open(t)
  const job = { queue: 'q', name: 'first', data: 1, opts: { jobId: 'same' } }
  const first = (await post('/jobs', job)).json()
  const again = await post('/jobs', { ...job, name: 'second', data: 2 })
  t.equal(again.statusCode, 200)
  t.same(again.json(), { ...first, deduplicated: true })
  await work(app, 'q', async () => 'done')
  t.match((await post('/jobs', job)).json(), { state: 'completed', deduplicated: true })
  t.equal(await queue('q').count(), 0)
})

t.test('a deduplicated job returns the existing job, also after that was removed', async (t) => {
  const { app, post } = await open(t)
  const opts = { deduplication: { id: 'user-42', ttl: 60_000 }, removeOnComplete: true }
  const first = (await post('/jobs', { queue: 'q', name: 'n', opts })).json()
  t.match((await post('/jobs', { queue: 'q', name: 'n', opts })).json(), {
    id: first.id,
    state: 'waiting',
    deduplicated: true,
  })
  await work(app, 'q', async () => 1)
  const gone = await post('/jobs', { queue: 'q', name: 'n', opts })
  t.equal(gone.statusCode, 200)
  t.match(gone.json(), { id: first.id, state: null, name: null, createdAt: null, deduplicated: true })
})

t.test('jobs that arrive together are sent in few commands and keep their order', async (t) => {
  const { app, post, queue } = await open(t)
  const before = app.http.inject('/stats')
  const sentBefore = (await before).json().commandsSent.enqueue ?? 0
  await Promise.all(Array.from({ length: 100 }, (_, i) => post('/jobs', { queue: 'q', name: 'n', data: i })))
  const { commandsSent, batching } = (await app.http.inject('/stats')).json()
  t.ok(commandsSent.enqueue - sentBefore <= 20, `${commandsSent.enqueue - sentBefore} commands for 100 jobs`)
  t.equal(batching.jobsSent, 100)
  const jobs = await queue('q').getWaiting(0, -1)
  t.same(
    jobs.map((job) => job.data),
    Array.from({ length: 100 }, (_, i) => i),
  )
})

t.test('with ENQUEUE_BATCH_MAX=1 every job is one command', async (t) => {
  const { app, post } = await open(t, { ENQUEUE_BATCH_MAX: '1' })
  await Promise.all(Array.from({ length: 10 }, () => post('/jobs', { queue: 'q', name: 'n' })))
  t.equal((await app.http.inject('/stats')).json().commandsSent.enqueue, 10)
})

t.test('a job without retention options has the default retention', async (t) => {
  const { post, queue } = await open(t, { DEFAULT_KEEP_COMPLETED_AGE: '60', DEFAULT_KEEP_FAILED_AGE: '120' })
  const plain = (await post('/jobs', { queue: 'q', name: 'n' })).json().id.slice(2)
  const own = (await post('/jobs', { queue: 'q', name: 'n', opts: { removeOnComplete: 5 } }))
    .json()
    .id.slice(2)
  t.match((await queue('q').getJob(plain))?.opts, {
    removeOnComplete: { age: 60 },
    removeOnFail: { age: 120 },
  })
  t.match((await queue('q').getJob(own))?.opts, { removeOnComplete: 5, removeOnFail: { age: 120 } })
})

t.test('a batch returns a result for every job, in the order of the request', async (t) => {
  const { post, queue } = await open(t)
  const response = await post('/jobs/batch', {
    jobs: [
      { queue: 'a', name: 'n', opts: { jobId: 'one' } },
      { queue: 'b', name: 'n' },
      { queue: 'a', name: 'n', opts: { jobId: 'completed' } },
      { queue: 'a', name: 'n', opts: { jobId: 'one' } },
      { queue: 'a', name: 'n', opts: { delay: 'abc' }, extra: 1 },
      { queue: 'a', name: 'n', data: 'x'.repeat(50), opts: { sizeLimit: 10 } },
    ],
  })
  t.equal(response.statusCode, 207)
  const { created, deduplicated, failed, results } = response.json()
  t.same({ created, deduplicated, failed }, { created: 2, deduplicated: 1, failed: 3 })
  t.match(results, [
    { index: 0, status: 201, id: 'a:one', state: 'waiting', deduplicated: false },
    { index: 1, status: 201, id: /^b:/ },
    { index: 2, status: 422, error: { code: 'INVALID_NAME', errors: [{ pointer: '/jobs/2/opts/jobId' }] } },
    { index: 3, status: 200, id: 'a:one', deduplicated: true },
    { index: 4, status: 422, error: { code: 'INVALID_ITEM', outcome: 'not_executed' } },
    { index: 5, status: 422, error: { code: 'INVALID_OPTION', errors: [{ pointer: '/jobs/5/data' }] } },
  ])
  const pointers = results[4].error.errors.map((error: { pointer: string }) => error.pointer).sort()
  t.same(pointers, ['/jobs/4/extra', '/jobs/4/opts/delay'])
  t.equal(await queue('a').count(), 1, 'refused jobs were not stored')
})

t.test('a batch is 201 when every job is stored, and 422 when none is', async (t) => {
  const { post } = await open(t)
  t.equal((await post('/jobs/batch', { jobs: [{ name: 'n' }, { name: 'n' }] })).statusCode, 201)
  const none = await post('/jobs/batch', { jobs: [{ name: '' }, { queue: 'a:b', name: 'n' }] })
  t.equal(none.statusCode, 422)
  t.match(none.json(), { created: 0, failed: 2, results: [{ status: 422 }, { status: 422 }] })
})

t.test('a batch of a thousand jobs is five commands', async (t) => {
  const { app, post, queue } = await open(t)
  const jobs = Array.from({ length: 1_000 }, (_, i) => ({ queue: 'q', name: 'n', data: i }))
  t.equal((await post('/jobs/batch', { jobs })).statusCode, 201)
  t.equal((await app.http.inject('/stats')).json().commandsSent.enqueue, 5)
  const stored = await queue('q').getWaiting(0, -1)
  t.ok(stored.every((job, index) => job.data === index))
})

t.test('a damaged queue fails its own jobs only, and leaves nothing of them behind', async (t) => {
  const { app, post } = await open(t)
  await redis.client.set(`${app.prefix}:bad:wait`, 'not a list')
  const response = await post('/jobs/batch', {
    jobs: [
      { queue: 'bad', name: 'n', opts: { jobId: 'x', deduplication: { id: 'd' } } },
      { queue: 'good', name: 'n' },
      { queue: 'bad', name: 'n', opts: { delay: 5 } },
    ],
  })
  t.equal(response.statusCode, 207)
  t.match(response.json().results, [
    { status: 503, error: { code: 'QUEUE_DAMAGED', outcome: 'not_executed', ids: ['bad:x'] } },
    { status: 201 },
    { status: 201 },
  ])
  t.equal(await redis.client.exists(`${app.prefix}:bad:x`), 0, 'the hash is gone')
  t.equal(await redis.client.exists(`${app.prefix}:bad:de:d`), 0, 'the deduplication key is gone')
  await redis.client.del(`${app.prefix}:bad:wait`)
  t.equal(
    (await post('/jobs', { queue: 'bad', name: 'n', opts: { jobId: 'x' } })).statusCode,
    201,
    'it works again',
  )
})

t.test('a key of the wrong type fails its own job only', async (t) => {
  const { app, post } = await open(t)
  await redis.client.set(`${app.prefix}:q:taken`, 'no job')
  const jobs = [
    { queue: 'q', name: 'n' },
    { queue: 'q', name: 'n', opts: { jobId: 'taken' } },
    { queue: 'q', name: 'n' },
  ]
  t.match((await post('/jobs/batch', { jobs })).json().results, [
    { status: 201 },
    { status: 503, error: { code: 'QUEUE_DAMAGED', outcome: 'not_executed' } },
    { status: 201 },
  ])
  t.equal(await redis.client.get(`${app.prefix}:q:taken`), 'no job', 'and is left unchanged')
})

t.test('a queue may be called sluice, and its job queues', async (t) => {
  const { post } = await open(t)
  t.equal((await post('/jobs', { queue: 'sluice', name: 'n', opts: { jobId: 'queues' } })).statusCode, 201)
  t.equal((await post('/jobs', { queue: 'other', name: 'n' })).statusCode, 201)
})

t.test('a poll by fetch, which adds no-cache to every If-None-Match, is served from memory', async (t) => {
  const { app, post } = await open(t, { CACHE_TTL_SHORT: '60000' })
  const url = await app.http.listen({ port: 0, host: '127.0.0.1' })
  const { id } = (await post('/jobs', { queue: 'q', name: 'n' })).json()
  const first = await fetch(`${url}/jobs/${id}`)
  const poll = await fetch(`${url}/jobs/${id}`, {
    headers: { 'if-none-match': first.headers.get('etag') as string },
  })
  t.equal(poll.status, 304)
  t.match(poll.headers.get('cache-status'), /hit/)
  const readThrough = await fetch(`${url}/jobs/${id}`, { headers: { 'cache-control': 'no-cache' } })
  t.match(readThrough.headers.get('cache-status'), /fwd=request/)
})

t.test('every state of a job is reported as BullMQ reports it', async (t) => {
  const { app, get, post, queue } = await open(t, {
    CACHE_TTL_SHORT: '0',
    CACHE_TTL_LONG: '0',
    CACHE_TTL_MISSING: '0',
  })
  const state = async (id: string) => {
    const { body } = await get(`/jobs/q:${id}`)
    return JSON.parse(body).state
  }
  const theirs = async (id: string) => (await queue('q').getJob(id))?.getState()
  await post('/jobs', { queue: 'q', name: 'n', opts: { jobId: 'w' } })
  await post('/jobs', { queue: 'q', name: 'n', opts: { jobId: 'd', delay: 60_000 } })
  await post('/jobs', { queue: 'q', name: 'n', opts: { jobId: 'p', priority: 3 } })
  for (const [id, expected] of [
    ['w', 'waiting'],
    ['d', 'delayed'],
    ['p', 'prioritized'],
  ] as const) {
    t.equal(await state(id), expected)
    t.equal(await theirs(id), expected)
  }
  let release: (value: unknown) => void = () => {}
  const released = new Promise((resolve) => {
    release = resolve
  })
  const working = work(app, 'q', async () => released)
  await eventually(async () => (await state('w')) === 'active')
  t.equal(await theirs('w'), 'active')
  release({ sum: 3 })
  await working
  const done = (await get('/jobs/q:w')).json()
  t.match(done, { state: 'completed', result: { sum: 3 }, attemptsMade: 1, error: null })
  t.ok(Date.parse(done.finishedAt) >= Date.parse(done.startedAt))
})

t.test('a failed job reports why, and a job to be retried reports when', async (t) => {
  const { app, get, post } = await open(t, {
    CACHE_TTL_SHORT: '0',
    CACHE_TTL_LONG: '0',
    CACHE_TTL_MISSING: '0',
  })
  await post('/jobs', { queue: 'f', name: 'n', opts: { jobId: 'a' } })
  await work(app, 'f', async () => {
    throw new Error('no such mailbox')
  })
  const failed = (await get('/jobs/f:a')).json()
  t.match(failed, { state: 'failed', error: { message: 'no such mailbox' }, attemptsMade: 1 })
  t.match(failed.error.stacktrace[0], /no such mailbox/)
  await post('/jobs', { queue: 'r', name: 'n', opts: { jobId: 'b', attempts: 2, backoff: 30_000 } })
  const before = Date.now()
  await work(app, 'r', async () => {
    throw new Error('later')
  })
  const retried = await get('/jobs/r:b')
  t.match(retried.json(), { state: 'delayed', attempts: 2, error: { message: 'later' } })
  t.ok(
    Math.abs(Date.parse(retried.json().delayedUntil) - before - 30_000) < 5_000,
    'counted from the failure',
  )
  t.ok(Number(retried.headers['retry-after']) > 20, 'and so is Retry-After')
})

t.test('only include adds data and logs', async (t) => {
  const { get, post, queue } = await open(t)
  await post('/jobs', { queue: 'q', name: 'n', data: { secret: 1 }, opts: { jobId: 'a' } })
  await (await queue('q').getJob('a'))?.log('first line')
  t.notOk('data' in (await get('/jobs/q:a')).json())
  t.same((await get('/jobs/q:a?include=data')).json().data, { secret: 1 })
  t.match((await get('/jobs/q:a?include=data,logs')).json(), { data: { secret: 1 }, logs: ['first line'] })
  t.equal((await get('/jobs/q:a?include=everything')).statusCode, 400)
  t.equal((await get('/jobs/q:a?weight=1')).statusCode, 400, 'an unknown parameter is refused')
})

t.test('an id without a job is 404, even if it names another key of the queue', async (t) => {
  const { app, get, post } = await open(t)
  await post('/jobs', { queue: 'q', name: 'n', opts: { jobId: 'a' } })
  await redis.client.set(`${app.prefix}:q:a:lock`, 'token')
  for (const id of [
    'q:none',
    'none',
    'q:meta',
    'q:wait',
    'q:a:lock',
    'q:events',
    'a%20b:c',
    'q:',
    '%00',
    `q:${'x'.repeat(5_000)}`,
  ]) {
    const response = await get(`/jobs/${id}`)
    t.equal(response.statusCode, 404, id)
    t.equal(response.headers['content-type'], 'application/problem+json; charset=utf-8')
  }
})

t.test('an unchanged job is 304, served from memory', async (t) => {
  const { app, get, post } = await open(t, { CACHE_TTL_SHORT: '60000' })
  const { id } = (await post('/jobs', { queue: 'q', name: 'n' })).json()
  const first = await get(`/jobs/${id}`)
  t.match(first.headers['cache-status'], /^sluice; fwd=miss; ttl=(59|60)$/)
  const commands = async () => (await app.http.inject('/stats')).json().commandsSent.jobView
  const before = await commands()
  for (const tag of [first.headers['etag'] as string, '*', `"other", W/${first.headers['etag']}`]) {
    const response = await get(`/jobs/${id}`, { 'if-none-match': tag })
    t.equal(response.statusCode, 304)
    t.equal(response.body, '')
    t.equal(response.headers['etag'], first.headers['etag'])
    t.match(response.headers['cache-status'], /^sluice; hit; ttl=\d+$/)
  }
  t.equal((await get(`/jobs/${id}`, { 'if-none-match': '"other"' })).statusCode, 200)
  t.equal(await commands(), before)
  t.match((await get(`/jobs/${id}`, { 'cache-control': 'no-cache' })).headers['cache-status'], /fwd=request/)
  t.equal(await commands(), before + 1)
})

t.test('a cached miss never hides a job enqueued here', async (t) => {
  const { get, post } = await open(t, { CACHE_TTL_MISSING: '60000' })
  t.equal((await get('/jobs/q:soon')).statusCode, 404)
  await post('/jobs', { queue: 'q', name: 'n', opts: { jobId: 'soon' } })
  t.equal((await get('/jobs/q:soon')).statusCode, 200)
})
