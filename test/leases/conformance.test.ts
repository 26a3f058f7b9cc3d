/**
 * The same jobs, worked by a native BullMQ worker and by an HTTP worker, leave the same data in Redis, key by key: hashes,
 * lists, sets, events and retry times. The comparison ignores times and the keys of a native worker's own loop (its marker
 * and its stalled check).
 */
import { FlowProducer, type JobsOptions, Queue, UnrecoverableError, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

type End = { result: unknown } | { error: string; unrecoverable?: boolean }

interface Scenario {
  opts?: JobsOptions
  /** The result of each attempt, in order. */
  ends: End[]
  /** Adds the jobs; without it, one job with `opts` is added. */
  add?(prefix: string): Promise<unknown>
  /** Runs while the first job is active. */
  whileActive?(prefix: string): Promise<unknown>
  check?(t: Test, prefix: string): Promise<unknown>
}

const STACK = 'Error: boom\n    at work (worker.js:1:1)'

async function add(prefix: string, { opts = {}, add: own }: Scenario): Promise<void> {
  if (own) {
    await own(prefix)
    return
  }
  const queue = new Queue('q', { connection, prefix })
  await queue.add('n', { n: 1 }, { jobId: 'j', ...opts })
  await queue.close()
}

async function workNatively(prefix: string, scenario: Scenario): Promise<void> {
  await add(prefix, scenario)
  let ended = 0
  // Without ends, the job fails before a worker gets it.
  const endCount = Math.max(1, scenario.ends.length)
  const worker = new Worker(
    'q',
    async () => {
      if (ended === 0) await scenario.whileActive?.(prefix)
      const end = scenario.ends[ended]
      if (!end) throw new Error('must not be worked')
      if ('result' in end) return end.result
      const error = end.unrecoverable ? new UnrecoverableError(end.error) : new Error(end.error)
      error.stack = STACK
      throw error
    },
    { connection, prefix, name: 'w', concurrency: 1 },
  )
  for (const event of ['completed', 'failed'] as const) {
    worker.on(event, () => {
      ended++
      if (ended === endCount) void worker.pause(true)
    })
  }
  await eventually(() => ended === endCount)
  await worker.close()
}

async function workOverHttp(prefix: string, scenario: Scenario): Promise<void> {
  await add(prefix, scenario)
  const app = await startApp(redis, { QUEUE_PREFIX: prefix })
  const post = async (url: string, body: object) =>
    (
      await app.http.inject({
        method: 'POST',
        url,
        headers: { 'content-type': 'application/json' },
        payload: JSON.stringify(body),
      })
    ).json()
  if (scenario.ends.length === 0)
    await app.http.inject({ method: 'POST', url: '/queues/q/leases', payload: { worker: 'w' } })
  for (const [index, end] of scenario.ends.entries()) {
    const { jobs } = await post('/queues/q/leases', { wait: 5, worker: 'w' })
    if (index === 0) await scenario.whileActive?.(prefix)
    const { lease } = jobs[0]
    const item =
      'result' in end
        ? { lease, outcome: 'complete', result: end.result }
        : {
            lease,
            outcome: 'fail',
            error: { message: end.error, stack: STACK },
            unrecoverable: end.unrecoverable ?? false,
          }
    await post('/leases/settle', { items: [item] })
  }
  await app.http.close()
}

/** `pc` counts prioritized jobs; a native worker that looks for a next job and finds none removes it. */
const IGNORED = /:(marker|stalled-check|stalled|limiter|pc)$|::sluice:/

async function snapshot(prefix: string): Promise<Record<string, unknown>> {
  const { client } = redis
  const found: Record<string, unknown> = {}
  for (const key of (await client.keys(`${prefix}:*`)).sort()) {
    if (IGNORED.test(key)) continue
    found[key.slice(prefix.length)] = await read(key, await client.type(key))
  }
  const text = JSON.stringify(found).replaceAll(prefix, 'P')
  return JSON.parse(
    text
      // Milliseconds since 1970, alone or as the scores of delayed jobs have them.
      .replace(/\b[12]\d{12}(\d{3,4})?\b/g, 'T')
      // The rest of an hour when a scheduler creates its next job.
      .replace(/\b3[56]\d{5}\b/g, 'HOUR')
      // Where a native worker itself has thrown.
      .replace(/\\\\n {4}at (?:(?!\\\\n|\\").)*node[:_](?:(?!\\\\n|\\").)*/g, '')
      .replace(/"offset":"\d+"/, '"offset":"O"')
      // A native worker that fetches the next job finds the delayed one, so it does not report an empty queue.
      .replace(',["event","drained"]', ''),
  )
}

async function read(key: string, type: string): Promise<unknown> {
  const { client } = redis
  if (type === 'hash') return client.hgetall(key)
  if (type === 'list') return client.lrange(key, 0, -1)
  if (type === 'zset') {
    const members = await client.zrange(key, '0', '-1')
    // Jobs that end in the same millisecond have no order here. The events have it.
    return /:(completed|failed)$/.test(key) ? members.sort() : members
  }
  if (type === 'stream') return (await client.xrange(key, '-', '+')).map(([, fields]) => fields)
  if (type === 'set') return (await client.smembers(key)).sort()
  return client.get(key)
}

const scenarios: Record<string, Scenario> = {
  'a result': { ends: [{ result: { ok: [1, 'two'] } }] },
  'no result': { ends: [{ result: null }] },
  'a failure': { ends: [{ error: 'boom' }] },
  'a failure with attempts left': { opts: { attempts: 3 }, ends: [{ error: 'boom' }] },
  'all attempts used up': { opts: { attempts: 2 }, ends: [{ error: 'one' }, { error: 'two' }] },
  'a fixed backoff': { opts: { attempts: 3, backoff: 40 }, ends: [{ error: 'one' }, { error: 'two' }] },
  'an exponential backoff': {
    opts: { attempts: 4, backoff: { type: 'exponential', delay: 20 } },
    ends: [{ error: 'one' }, { error: 'two' }, { error: 'three' }],
  },
  'a failure, then a result': { opts: { attempts: 2 }, ends: [{ error: 'one' }, { result: 2 }] },
  unrecoverable: { opts: { attempts: 5 }, ends: [{ error: 'boom', unrecoverable: true }] },
  'few stack traces': {
    opts: { attempts: 3, stackTraceLimit: 1 },
    ends: [{ error: 'one' }, { error: 'two' }],
  },
  'removed on completion': { opts: { removeOnComplete: true }, ends: [{ result: 1 }] },
  'removed on failure': { opts: { removeOnFail: true }, ends: [{ error: 'boom' }] },
  'kept by number': {
    opts: { removeOnComplete: 5, removeOnFail: { age: 60, count: 3 } },
    ends: [{ result: 1 }],
  },
  'a priority': { opts: { priority: 3, attempts: 2 }, ends: [{ error: 'one' }] },
  lifo: { opts: { lifo: true, attempts: 2 }, ends: [{ error: 'one' }] },
  'a deduplication': { opts: { deduplication: { id: 'd' } }, ends: [{ result: 1 }] },
  'a deduplication that keeps the last job while one is active': {
    opts: { deduplication: { id: 'd', keepLastIfActive: true } },
    async whileActive(prefix) {
      const queue = new Queue('q', { connection, prefix })
      for (const n of [2, 3]) {
        const opts = { jobId: `j${n}`, deduplication: { id: 'd', keepLastIfActive: true } }
        await queue.add('n', { n }, opts)
      }
      await queue.close()
    },
    ends: [{ result: 1 }, { result: 2 }],
  },
  'a failure that was decided before': {
    async add(prefix) {
      const queue = new Queue('q', { connection, prefix })
      await queue.add('n', {}, { jobId: 'j', attempts: 3 })
      await redis.client.hset(`${prefix}:q:j`, 'defa', 'child failed')
      await queue.close()
    },
    ends: [],
  },
  'the order of lifo and priorities': {
    async add(prefix) {
      const queue = new Queue('q', { connection, prefix })
      const all = [{ priority: 9 }, { priority: 2 }, {}, { lifo: true }, { lifo: true, priority: 2 }]
      for (const [n, opts] of all.entries()) await queue.add('n', { n }, { jobId: `j${n}`, ...opts })
      await queue.close()
    },
    ends: [0, 1, 2, 3, 4].map((result) => ({ result })),
  },
  'kept for an age, which removes older jobs that were to be kept longer': {
    async add(prefix) {
      const old = { name: 'n', data: '{}', opts: '{"removeOnComplete":{"age":3600}}', timestamp: 1 }
      await redis.client.hset(`${prefix}:q:old`, old)
      await redis.client.zadd(`${prefix}:q:completed`, Date.now() - 10_000, 'old')
      const queue = new Queue('q', { connection, prefix })
      await queue.add('n', {}, { jobId: 'j', removeOnComplete: { age: 5 } })
      await queue.close()
    },
    ends: [{ result: 1 }],
    async check(t, prefix) {
      t.same(await redis.client.zrange(`${prefix}:q:completed`, '0', '-1'), ['j'])
    },
  },
  'a child of a flow': {
    async add(prefix) {
      const flow = new FlowProducer({ connection, prefix })
      await flow.add({
        name: 'p',
        queueName: 'parents',
        opts: { jobId: 'p' },
        children: [{ name: 'c', queueName: 'q', opts: { jobId: 'c' } }],
      })
      await flow.close()
    },
    ends: [{ result: 1 }],
  },
  'a child whose failure is its parent’s': {
    async add(prefix) {
      const flow = new FlowProducer({ connection, prefix })
      const opts = { jobId: 'c', failParentOnFailure: true }
      await flow.add({
        name: 'p',
        queueName: 'parents',
        opts: { jobId: 'p' },
        children: [{ name: 'c', queueName: 'q', opts }],
      })
      await flow.close()
    },
    ends: [{ error: 'boom' }],
  },
  ...Object.fromEntries(
    (['ignoreDependencyOnFailure', 'removeDependencyOnFailure', 'continueParentOnFailure'] as const).map(
      (option) => [
        `a child with ${option} that fails`,
        {
          async add(prefix: string) {
            const flow = new FlowProducer({ connection, prefix })
            await flow.add({
              name: 'p',
              queueName: 'parents',
              opts: { jobId: 'p' },
              children: [
                { name: 'c', queueName: 'q', opts: { jobId: 'c', [option]: true } },
                { name: 'd', queueName: 'others', opts: { jobId: 'd' } },
              ],
            })
            await flow.close()
          },
          ends: [{ error: 'boom' }],
        },
      ],
    ),
  ),
  'a job of a scheduler': {
    async add(prefix) {
      const queue = new Queue('q', { connection, prefix })
      await queue.upsertJobScheduler('s', { every: 3_600_000 }, { name: 'n', data: { n: 1 } })
      await queue.close()
    },
    ends: [{ result: 1 }],
  },
}

for (const [name, scenario] of Object.entries(scenarios)) {
  t.test(`${name}: an HTTP worker leaves the same data in Redis as a native worker`, async (t) => {
    const [native, http] = [uniquePrefix(), uniquePrefix()]
    await workNatively(native, scenario)
    await workOverHttp(http, scenario)
    t.same(await snapshot(http), await snapshot(native))
    await scenario.check?.(t, http)
  })
}
