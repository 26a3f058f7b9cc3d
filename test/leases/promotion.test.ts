/**
 * A delayed job that comes due while its queue is paused or full becomes waiting, and keeps its place in the order. The same
 * steps with a native worker and with workers over HTTP: the same counts at each step, and the same order of work.
 */
import { type JobsOptions, Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'
import { startReceiver } from '../webhooks/endpoint.ts'
import { connectionTo, post, settle } from './client.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = connectionTo(redis)
const prefix = uniquePrefix()
const settings = { QUEUE_PREFIX: prefix, WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', SECRET: 's'.repeat(32) }
const app = await startApp(redis, settings)
t.teardown(() => app.http.close())
const replica = await startApp(redis, settings)
t.teardown(() => replica.http.close())

/** Starts workers with one slot on a queue. */
type StartWorkers = (t: Test, queue: string) => unknown

/** BullMQ's defaults are 5 s and 30 s: as long as that, its worker leaves due jobs delayed. */
const OFTEN = { drainDelay: 0.05, maximumRateLimitDelay: 50 }

/** For how long a worker is busy with the job `slow`. */
const SLOW_MS = 400
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const busyWith = async (id: string) => id.endsWith('slow') && sleep(SLOW_MS)

function startNative(t: Test, queue: string) {
  const worker = new Worker(queue, (job) => busyWith(job.id!), { connection, prefix, ...OFTEN })
  t.teardown(() => worker.close())
}

const take = (at: TestApp, queue: string, wait = 0) => post(at, `/queues/${queue}/leases`, { wait })

async function pull(t: Test, at: TestApp, queue: string) {
  let isOver = false
  t.teardown(() => {
    isOver = true
  })
  while (!isOver) {
    const { body } = await take(at, queue, 5)
    for (const { id, lease } of body?.jobs ?? []) {
      await busyWith(id)
      await settle(at, [{ lease, outcome: 'complete' }])
    }
  }
}

async function deliver(t: Test, queue: string) {
  const receiver = await startReceiver(t)
  receiver.answer = ({ job }) => ({ afterMs: job.id.endsWith('slow') ? SLOW_MS : 0 })
  const payload = { url: receiver.url, concurrency: 1 }
  await app.http.inject({ method: 'PUT', url: `/queues/${queue}/subscription`, payload })
}

const workers: Record<string, StartWorkers> = {
  'a native worker': startNative,
  'a pull worker': (t, queue) => pull(t, app, queue),
  'pull workers of two replicas': (t, queue) => [pull(t, app, queue), pull(t, replica, queue)],
  'a webhook': deliver,
}

interface Steps {
  queue: Queue
  startWorkers(): unknown
  add(id: string, opts?: JobsOptions): Promise<unknown>
  /** Resolves once no job is delayed. */
  untilPromoted(): Promise<void>
  /** Records the counts. */
  look(): Promise<unknown>
}

const scenarios: Record<string, (steps: Steps) => Promise<unknown>> = {
  async 'the queue is paused'({ queue, startWorkers, add, untilPromoted, look }) {
    await add('due', { delay: 400 })
    await add('due-prioritized', { delay: 300, priority: 5 })
    await queue.pause()
    startWorkers()
    await look()
    await untilPromoted()
    await look()
    await add('later-prioritized', { priority: 5 })
    await add('later')
    await look()
    await queue.resume()
  },
  async 'the queue is paused while its worker waits'({ queue, startWorkers, add, untilPromoted, look }) {
    startWorkers()
    await add('first')
    await eventually(async () => (await queue.getCompletedCount()) === 1)
    await queue.pause()
    await add('due', { delay: 200 })
    await look()
    await untilPromoted()
    await look()
    await add('later')
    await queue.resume()
  },
  async 'a native worker has the only job that may be active'(steps) {
    const { queue, add } = steps
    await add('held')
    const holder = new Worker(queue.name, null, { connection, prefix, autorun: false })
    const job = await holder.getNextJob('token')
    await whileFull(steps)
    await job!.moveToCompleted('done', 'token', false)
    await holder.close()
  },
  async 'an HTTP worker has the only job that may be active'(steps) {
    await steps.add('held')
    const { body } = await take(app, steps.queue.name)
    await whileFull(steps)
    await settle(app, [{ lease: body.jobs[0].lease, outcome: 'complete' }])
  },
  async 'the queue is rate limited'({ queue, startWorkers, add, untilPromoted, look }) {
    await queue.setGlobalRateLimit(100, 100)
    await queue.rateLimit(600)
    await add('due', { delay: 300 })
    startWorkers()
    await look()
    await untilPromoted()
    await look()
    await add('later')
  },
}

async function whileFull({ queue, startWorkers, add, untilPromoted, look }: Steps) {
  await queue.setGlobalConcurrency(1)
  await add('due', { delay: 300 })
  startWorkers()
  await look()
  await untilPromoted()
  await look()
  await add('later')
  await look()
}

/** Ids in the order in which they were taken. */
async function orderOf(queue: string): Promise<string[]> {
  const entries = await redis.client.xrange(`${prefix}:${queue}:events`, '-', '+')
  return entries.filter(([, [, event]]) => event === 'active').map(([, fields]) => fields[3]!)
}

let queues = 0

async function run(t: Test, start: StartWorkers, scenario: (steps: Steps) => Promise<unknown>) {
  const queue = new Queue(`q${queues++}`, { connection, prefix })
  t.teardown(() => queue.close())
  const seen: unknown[] = []
  let added = 0
  await scenario({
    queue,
    startWorkers: () => start(t, queue.name),
    add: (jobId, opts) => {
      added++
      return queue.add('n', {}, { jobId, ...opts })
    },
    untilPromoted: () => eventually(async () => (await queue.getDelayedCount()) === 0),
    look: async () => seen.push(await queue.getJobCounts()),
  })
  await eventually(async () => (await queue.getCompletedCount()) === added)
  return { seen, order: await orderOf(queue.name) }
}

for (const [name, scenario] of Object.entries(scenarios)) {
  t.test(`${name}: a due job is promoted on time and keeps its place, as with a native worker`, async (t) => {
    const runs = Object.entries(workers).map(async ([kind, start]) => ({
      kind,
      result: await run(t, start, scenario),
    }))
    const [native, ...others] = await Promise.all(runs)
    for (const { kind, result } of others) t.same(result, native!.result, kind)
  })
}

t.test('a worker that is busy promotes no job, as a native worker', async (t) => {
  const busy = async ({ queue, startWorkers, add, look }: Steps) => {
    await add('slow')
    startWorkers()
    await eventually(async () => (await queue.getActiveCount()) === 1)
    await add('due', { delay: 100 })
    await sleep(150)
    await add('later')
    await look()
  }
  const kinds = ['a native worker', 'a pull worker', 'a webhook']
  const results = await Promise.all(kinds.map((kind) => run(t, workers[kind]!, busy)))
  for (const { seen, order } of results) {
    t.match(seen, [{ active: 1, delayed: 1, waiting: 1 }])
    t.same(order, ['slow', 'later', 'due'])
  }
})
