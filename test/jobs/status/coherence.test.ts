/**
 * The cache agrees with Redis: every change of a job, from any source, shows within the bound at both of two replicas, and
 * no removed job reappears.
 */
import { type Job, Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

/** The contract says 100 ms; the rest allows for a busy machine. */
const BOUND_MS = 100 + 400

/** Two replicas of the service on one Redis, and the queue as an operator uses it. */
async function open(t: Test, settings: Record<string, string> = {}) {
  const prefix = uniquePrefix()
  const apps = await Promise.all([1, 2].map(() => startApp(redis, { QUEUE_PREFIX: prefix, ...settings })))
  t.teardown(() => Promise.all(apps.map((app) => app.http.close())))
  return { apps, prefix, queue: new Queue('q', { connection: redis.client, prefix }) }
}

interface Read {
  state: string
  progress: unknown
  attemptsMade: number
  /** From its creation to its due time. */
  delayS: number
  source: string
}

async function read(app: TestApp, key: string, headers: Record<string, string> = {}): Promise<Read> {
  const answer = await app.http.inject({ url: `/jobs/q:${key}`, headers })
  const { state = 'none', progress, attemptsMade, createdAt, delayedUntil } = answer.json()
  const delayS = Math.floor((Date.parse(delayedUntil) - Date.parse(createdAt)) / 1000)
  const source = `${answer.headers['cache-status']}`
  return { state, progress, attemptsMade, delayS, source }
}

/** Waits until the job is in the memory of each replica and has been read from there. */
async function cacheAt(apps: TestApp[], key: string): Promise<void> {
  for (const app of apps) {
    await eventually(async () => {
      const { source } = await read(app, key)
      return source.includes('hit') && !source.includes('degraded')
    })
  }
}

/** Waits until both replicas return `wanted`, at most for the bound. */
async function afterBound(t: Test, apps: TestApp[], key: string, wanted: Partial<Read>): Promise<void> {
  const changedAt = performance.now()
  for (const [replica, app] of apps.entries()) {
    let last: Read | undefined
    await eventually(async () => {
      last = await read(app, key)
      return Object.entries(wanted).every(([name, value]) => last![name as keyof Read] === value)
    }, BOUND_MS).catch(() => t.match(last, wanted, `replica ${replica}`))
  }
  t.ok(performance.now() - changedAt <= 2 * BOUND_MS)
}

async function take(queue: Queue, prefix: string): Promise<{ job: Job; token: string; worker: Worker }> {
  const worker = new Worker(queue.name, null, { connection, prefix, autorun: false })
  worker.on('error', () => {})
  t.teardown(() => worker.close(true))
  const job = await worker.getNextJob('token')
  if (!job) throw new Error('no job is waiting')
  return { job, token: 'token', worker }
}

type Change = (at: { queue: Queue; prefix: string }) => Promise<unknown>

/** `opts` of the job `a`; `before` runs before its first read. */
const changes: { what: string; opts?: object; before?: Change; change: Change; shows: Partial<Read> }[] = [
  {
    what: 'a worker takes the job',
    change: ({ queue, prefix }) => take(queue, prefix),
    shows: { state: 'active', attemptsMade: 0 },
  },
  {
    what: 'the job completes',
    change: async ({ queue, prefix }) => (await take(queue, prefix)).job.moveToCompleted(1, 'token', false),
    shows: { state: 'completed', attemptsMade: 1 },
  },
  {
    what: 'the job fails',
    change: async ({ queue, prefix }) =>
      (await take(queue, prefix)).job.moveToFailed(new Error('no'), 'token', false),
    shows: { state: 'failed' },
  },
  {
    what: 'the job fails and will be retried',
    opts: { attempts: 2, backoff: 60_000 },
    change: async ({ queue, prefix }) =>
      (await take(queue, prefix)).job.moveToFailed(new Error('no'), 'token', false),
    shows: { state: 'delayed', attemptsMade: 1 },
  },
  {
    what: 'the worker reports progress',
    change: async ({ queue, prefix }) => (await take(queue, prefix)).job.updateProgress(50),
    shows: { progress: 50 },
  },
  {
    what: 'an operator retries the job',
    before: async ({ queue, prefix }) =>
      (await take(queue, prefix)).job.moveToFailed(new Error('no'), 'token', false),
    change: async ({ queue }) => (await queue.getJob('a'))!.retry('failed'),
    shows: { state: 'waiting' },
  },
  {
    what: 'an operator retries every failed job',
    before: async ({ queue, prefix }) =>
      (await take(queue, prefix)).job.moveToFailed(new Error('no'), 'token', false),
    change: ({ queue }) => queue.retryJobs({ state: 'failed' }),
    shows: { state: 'waiting' },
  },
  {
    what: 'an operator promotes the job',
    opts: { delay: 60_000 },
    change: async ({ queue }) => (await queue.getJob('a'))!.promote(),
    shows: { state: 'waiting' },
  },
  {
    what: 'an operator extends the delay',
    opts: { delay: 60_000 },
    change: async ({ queue }) => (await queue.getJob('a'))!.changeDelay(120_000),
    shows: { state: 'delayed', delayS: 120 },
  },
  {
    what: 'an operator removes the job',
    change: async ({ queue }) => (await queue.getJob('a'))!.remove(),
    shows: { state: 'none' },
  },
  {
    what: 'an operator removes a finished job',
    before: async ({ queue, prefix }) => (await take(queue, prefix)).job.moveToCompleted(1, 'token', false),
    change: async ({ queue }) => (await queue.getJob('a'))!.remove(),
    shows: { state: 'none' },
  },
  {
    what: 'an operator cleans finished jobs',
    before: async ({ queue, prefix }) => (await take(queue, prefix)).job.moveToCompleted(1, 'token', false),
    change: ({ queue }) => queue.clean(0, 100, 'completed'),
    shows: { state: 'none' },
  },
  {
    what: 'the job completes and is not kept',
    opts: { removeOnComplete: true },
    change: async ({ queue, prefix }) => (await take(queue, prefix)).job.moveToCompleted(1, 'token', false),
    shows: { state: 'none' },
  },
  {
    what: 'a newer job with the same deduplication id replaces it',
    opts: { delay: 60_000, deduplication: { id: 'd', ttl: 60_000, replace: true, extend: true } },
    change: ({ queue }) =>
      queue.add(
        'n',
        {},
        {
          delay: 60_000,
          jobId: 'b',
          deduplication: { id: 'd', ttl: 60_000, replace: true, extend: true },
        },
      ),
    shows: { state: 'none' },
  },
  {
    what: 'the job is removed and stored again with the same id',
    before: async ({ queue, prefix }) => (await take(queue, prefix)).job.moveToCompleted(1, 'token', false),
    change: async ({ queue }) => {
      await (await queue.getJob('a'))!.remove()
      await queue.add('n', {}, { jobId: 'a' })
    },
    shows: { state: 'waiting' },
  },
]

t.test('a change shows within the bound at each replica', async (t) => {
  for (const { what, opts = {}, before, change, shows } of changes) {
    await t.test(what, async (t) => {
      const { apps, queue, prefix } = await open(t)
      await queue.add('n', {}, { ...opts, jobId: 'a' })
      await before?.({ queue, prefix })
      await cacheAt(apps, 'a')
      await change({ queue, prefix })
      await afterBound(t, apps, 'a', shows)
      const truth = await read(apps[0]!, 'a', { 'cache-control': 'no-cache' })
      t.match(truth, shows, 'and Redis agrees')
    })
  }
})

t.test('a job that one replica writes shows there at once, and at the other within the bound', async (t) => {
  const { apps, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'other' })
  for (const app of apps) t.equal((await read(app, 'mine')).state, 'none')
  const [writer] = apps as [TestApp]
  const stored = await writer.http.inject({
    method: 'POST',
    url: '/jobs',
    headers: { 'content-type': 'application/json' },
    payload: '{"queue":"q","name":"n","opts":{"jobId":"mine"}}',
  })
  t.equal(stored.statusCode, 201)
  t.equal((await read(writer, 'mine')).state, 'waiting', 'at the very next read')
  await afterBound(t, apps, 'mine', { state: 'waiting' })
})

t.test('the first job of a queue shows within the bound too', async (t) => {
  const { apps, queue } = await open(t)
  for (const app of apps) t.equal((await read(app, 'a')).state, 'none')
  await queue.add('n', {}, { jobId: 'a' })
  await afterBound(t, apps, 'a', { state: 'waiting' })
})

t.test('a change that BullMQ does not announce (drain) shows within CACHE_TTL_SHORT', async (t) => {
  const { apps, queue } = await open(t, { CACHE_TTL_SHORT: '700' })
  await queue.add('n', {}, { jobId: 'a' })
  await cacheAt(apps, 'a')
  await queue.drain()
  t.equal((await read(apps[0]!, 'a')).state, 'waiting', 'no event announced it')
  for (const app of apps)
    await eventually(async () => (await read(app, 'a')).state === 'none', 700 + BOUND_MS)
})

t.test('obliterating a queue and flushing Redis show within five seconds', async (t) => {
  for (const end of ['obliterate', 'flushall'] as const) {
    const { apps, queue } = await open(t)
    await queue.add('n', {}, { jobId: 'a' })
    await cacheAt(apps, 'a')
    if (end === 'obliterate') await queue.obliterate()
    else await redis.client.flushall()
    const endedAt = performance.now()
    for (const app of apps) await eventually(async () => (await read(app, 'a')).state === 'none', 8_000)
    t.ok(performance.now() - endedAt < 5_000 + BOUND_MS, end)
    await queue.add('n', {}, { jobId: 'a' })
    await afterBound(t, apps, 'a', { state: 'waiting' })
  }
})

t.test('under concurrent workers and readers no state goes back and no removed job reappears', async (t) => {
  const { apps, queue, prefix } = await open(t)
  const ranks = ['waiting', 'active', 'completed', 'none']
  const keys = Array.from({ length: 60 }, (_, i) => `k${i}`)
  await queue.addBulk(
    keys.map((jobId, i) => ({ name: 'n', data: {}, opts: { jobId, removeOnComplete: i % 3 === 0 } })),
  )
  let done = 0
  const worker = new Worker(
    'q',
    async (job) => {
      await job.updateProgress(50)
      await new Promise((resolve) => setTimeout(resolve, 20))
    },
    { connection, prefix, concurrency: 5, autorun: false },
  )
  worker.on('completed', () => done++)
  t.teardown(() => worker.close(true))
  let backward = 0
  let hits = 0
  const readers = apps.flatMap((app) =>
    keys.map(async (key) => {
      let rank = 0
      let progress = 0
      for (let wasDone = false; !wasDone; ) {
        wasDone = done === keys.length
        const seen = await read(app, key)
        const rankNow = ranks.indexOf(seen.state)
        if (rankNow < rank || (rankNow < 3 && Number(seen.progress) < progress)) backward++
        rank = rankNow
        if (rankNow < 3) progress = Number(seen.progress)
        if (seen.source.includes('hit')) hits++
        await new Promise((resolve) => setTimeout(resolve, 2))
      }
    }),
  )
  void worker.run()
  await Promise.all(readers)
  t.equal(backward, 0)
  t.ok(hits > 1_000, `${hits} responses from memory`)
  for (const app of apps) {
    for (const [i, key] of keys.entries()) {
      const wanted = i % 3 === 0 ? 'none' : 'completed'
      await eventually(async () => (await read(app, key)).state === wanted, BOUND_MS)
    }
  }
})

t.test('a job that changes twice while it is read once is not cached in its old state', async (t) => {
  const { apps, queue, prefix } = await open(t)
  const keys = Array.from({ length: 600 }, (_, i) => `k${i}`)
  await queue.addBulk(keys.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  // The queue must be followed before anything happens.
  await cacheAt(apps, 'k599')
  const reads: Promise<Read>[] = []
  // Each job is read while the worker takes or completes it, which happens within a moment.
  const worker = new Worker(
    'q',
    async (job) => {
      const next = Number(job.id!.slice(1))
      for (const app of apps) reads.push(read(app, `k${next}`), read(app, `k${next + 1}`))
    },
    { connection, prefix, concurrency: 3 },
  )
  t.teardown(() => worker.close(true))
  await eventually(async () => (await queue.getCompletedCount()) === keys.length)
  await Promise.all(reads)
  await new Promise((resolve) => setTimeout(resolve, BOUND_MS))
  for (const app of apps) {
    const states = await Promise.all(keys.map(async (key) => (await read(app, key)).state))
    const stale = keys.filter((_, i) => states[i] !== 'completed')
    t.same(stale, [], 'no job is still in an earlier state')
  }
})
