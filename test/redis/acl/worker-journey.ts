/**
 * Works jobs over HTTP and by webhook, through every branch of BullMQ's scripts, to show that each is
 * allowed. The results are tested elsewhere. Each part has its own queues, so that all run at once while one
 * waits for leases to expire.
 */
import { FlowProducer, type JobsOptions, Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import type { Test } from 'tap'
import { eventually, type TestApp } from '../../helpers/app.ts'
import { startReceiver } from '../../webhooks/endpoint.ts'
import { post, type Server, send } from './server.ts'

interface WorkerApi {
  admin: Redis
  flows: FlowProducer
  /** For operations without a route. Writes nothing until it is used. */
  queue(name: string): Queue
  /** Takes exactly `count` jobs and resolves with their leases. */
  take(queue: string, count?: number, body?: object): Promise<string[]>
  settle(leases: string[], outcome: object, status?: number): Promise<void>
  extend(lease: string, extension: object, status?: number): Promise<void>
  /** Takes the next job, waiting for it, and settles it. */
  end(queue: string, outcome: object): Promise<void>
}

const DONE = { outcome: 'complete', result: { ok: true } }
const FAILED = { outcome: 'fail', error: { message: 'no' } }
const FAILED_FOR_GOOD = { ...FAILED, unrecoverable: true }
const LATER = { outcome: 'retry', delay: 5 }
const RELEASED = { outcome: 'release' }

export async function workJourney(t: Test, app: TestApp, server: Server): Promise<void> {
  const api = workerApi(t, app, server)
  const parts = [stalls, attempts, retention, families, deduplication, bounds, keeping, schedulers]
  await Promise.all([...parts.map((part) => part(api)), webhooks(t, app, api)])
}

function workerApi(t: Test, app: TestApp, { admin, connection }: Server): WorkerApi {
  const queues = new Map<string, Queue>()
  const flows = new FlowProducer({ connection })
  t.teardown(() => Promise.all([flows, ...queues.values()].map((one) => one.close())))

  const api: WorkerApi = {
    admin,
    flows,
    queue(name) {
      const queue = queues.get(name) ?? new Queue(name, { connection, skipMetasUpdate: true })
      queues.set(name, queue)
      return queue
    },
    async take(queue, count = 1, body = { wait: 10 }) {
      const { status, body: response } = await post(app, `/queues/${queue}/leases`, {
        max: count || 1,
        ...body,
      })
      const leases = ((response?.jobs ?? []) as { lease: string }[]).map(({ lease }) => lease)
      t.equal(leases.length, count, `${queue}: ${status} ${JSON.stringify(response)}`)
      return leases
    },
    async settle(leases, outcome, expected = 200) {
      const items = leases.map((lease) => ({ lease, ...outcome }))
      const { status, body } = await post(app, '/leases/settle', { items })
      t.equal(status, expected, JSON.stringify(body))
    },
    async extend(lease, extension, expected = 200) {
      const { status, body } = await post(app, '/leases/extend', { items: [{ lease, ...extension }] })
      t.equal(status, expected, JSON.stringify(body))
    },
    end: async (queue, outcome) => api.settle(await api.take(queue), outcome),
  }
  return api
}

/** Leases that expire until the job fails, also for a scheduler's job, with and without its scheduler. */
async function stalls({ queue, take, settle, admin }: WorkerApi): Promise<void> {
  const [often, once] = [queue('stalls'), queue('stalls-once')]
  await once.setGlobalConcurrency(1)
  await often.add('n', {}, { jobId: 'plain' })
  await often.upsertJobScheduler('s', { every: 3_600_000 }, { name: 'n' })
  await once.upsertJobScheduler('gone', { every: 3_600_000 }, { name: 'n' })
  await once.removeJobScheduler('gone')
  // A marker left by an old version of BullMQ.
  await admin.sadd('bull:stalls-once:stalled', '0:0')
  await take('stalls', 2, { leaseMs: 1_000 })
  await take('stalls-once', 1, { leaseMs: 1_000 })
  await eventually(async () => (await often.getWaitingCount()) === 2)
  await settle(await take('stalls-once'), DONE)
  await take('stalls', 2, { leaseMs: 1_000 })
  await eventually(async () => (await often.getWaitingCount()) === 2)
  // Taking the job that stalled twice fails it.
  await settle(await take('stalls', 1, { max: 2 }), DONE)
  await eventually(async () => (await often.getFailedCount()) === 1)
}

/** A job that is not completed: it waits again, at its old position or delayed. */
async function attempts({ queue, take, settle, end, admin }: WorkerApi): Promise<void> {
  const jobs = queue('attempts')
  const kinds = [{}, { lifo: true }, { priority: 2 }, { backoff: 5 }, { priority: 2, backoff: 5 }]
  for (const kind of kinds) {
    await jobs.add('n', {}, { attempts: 4, ...kind })
    // The second failure finds the stack trace of the first.
    for (const outcome of [FAILED, FAILED, RELEASED, LATER, FAILED_FOR_GOOD]) await end('attempts', outcome)
  }
  // Delayed jobs become due while the job is active; settling it promotes them.
  await jobs.add('n', {}, { attempts: 2 })
  const leases = await take('attempts')
  await jobs.addBulk(
    [{}, { priority: 1 }].map((opts) => ({ name: 'n', data: {}, opts: { delay: 1, ...opts } })),
  )
  await new Promise((resolve) => setTimeout(resolve, 10))
  await settle(leases, FAILED)
  for (let i = 0; i < 3; i++) await end('attempts', DONE)
  // A marker left by an old version of BullMQ.
  await admin.rpush('bull:attempts:wait', '0:0')
  await take('attempts', 0, {})
}

/** Jobs that are removed: at once, by count, by age, and by age in batches. */
async function retention({ queue, take, settle }: WorkerApi): Promise<void> {
  const jobs = queue('retention')
  for (const keep of [true, 1, { age: 0 }, { age: 0, count: 1 }, { age: 0, limit: 1 }]) {
    const opts = { removeOnComplete: keep, removeOnFail: keep } as JobsOptions
    await jobs.addBulk(Array.from({ length: 4 }, () => ({ name: 'n', data: {}, opts })))
    await settle(await take('retention', 2), DONE)
    await settle(await take('retention', 2), FAILED)
  }
}

/** Children and their parents in another queue. */
async function families({ flows, queue, take, settle, end }: WorkerApi): Promise<void> {
  const add = (opts: JobsOptions, ...children: JobsOptions[]) =>
    flows.add({
      name: 'p',
      queueName: 'parents',
      opts,
      children: children.map((opts) => ({ name: 'c', queueName: 'children', opts })),
    })
  for (const opts of [{}, { priority: 1 }, { delay: 5 }]) {
    await add(opts, {}, { removeOnComplete: true })
    for (const name of ['children', 'children', 'parents']) await end(name, DONE)
  }
  for (const fate of ['ignoreDependencyOnFailure', 'removeDependencyOnFailure', 'removeOnFail']) {
    await add({}, { [fate]: true })
    await end('children', FAILED)
    await end('parents', DONE)
  }
  // The parent becomes ready before its second child completes, but cannot complete before it.
  await add({}, { continueParentOnFailure: true }, {})
  await end('children', FAILED)
  const leases = await take('parents')
  await settle(leases, DONE, 207)
  await end('children', DONE)
  await settle(leases, DONE)
  // The parent is delayed for a retry when its second child fails it.
  await add({}, { continueParentOnFailure: true }, { failParentOnFailure: true })
  await end('children', FAILED)
  await end('parents', { ...LATER, delay: 3_600_000 })
  await end('children', FAILED)
  await take('parents', 0, {})
  // Two failures that fail the parent as soon as it is taken.
  await add({}, { failParentOnFailure: true }, { failParentOnFailure: true })
  for (let i = 0; i < 2; i++) await end('children', FAILED)
  await take('parents', 0, {})
  // A failed child blocks its parent until retention removes it.
  await add({}, {})
  await end('children', FAILED)
  await queue('children').add('n', {}, { removeOnFail: 1 })
  await end('children', FAILED)
  await end('parents', DONE)
}

/**
 * Jobs that deduplicate others. The last duplicate is added when the job is done, with every kind of option.
 */
async function deduplication({ queue, take, settle, end }: WorkerApi): Promise<void> {
  const jobs = queue('deduplication')
  await jobs.setGlobalConcurrency(2)
  for (const opts of [{}, { ttl: 60_000 }, { ttl: 60_000, extend: true }]) {
    await jobs.add('n', {}, { deduplication: { id: `d${Object.keys(opts)}`, ...opts } })
    await end('deduplication', DONE)
  }
  const kinds = [{}, { lifo: true }, { priority: 1 }, { delay: 5 }, { jobId: 'own' }]
  for (const [index, opts] of kinds.entries()) {
    const deduplication = { id: `last${index}`, keepLastIfActive: true }
    await jobs.add('n', {}, { deduplication })
    const leases = await take('deduplication')
    await jobs.add('n', {}, { ...opts, deduplication })
    await settle(leases, index % 2 === 0 ? DONE : FAILED)
    await end('deduplication', DONE)
  }
}

/** Queues that are limited or paused. */
async function bounds({ queue, take, settle, end }: WorkerApi): Promise<void> {
  const two = ['a', 'b'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId, attempts: 2 } }))
  for (const name of ['limited', 'narrow', 'paused']) await queue(name).addBulk(two)
  await queue('limited').setGlobalRateLimit(1, 100)
  // Released while the rate limit is in effect.
  await settle(await take('limited', 1, { max: 2 }), RELEASED)
  for (let i = 0; i < 2; i++) await end('limited', DONE)
  await queue('narrow').setGlobalConcurrency(1)
  await settle(await take('narrow', 1, { max: 2 }), FAILED)
  for (const outcome of [RELEASED, DONE, DONE]) await end('narrow', outcome)
  const leases = await take('paused')
  await queue('paused').pause()
  await settle(leases, RELEASED)
  await take('paused', 0, {})
}

/** Leases that are extended with progress and a log line, and leases that were lost. */
async function keeping({ queue, take, settle, extend, admin }: WorkerApi): Promise<void> {
  const jobs = queue('keeping')
  await jobs.add('n', {}, { jobId: 'a' })
  await jobs.add('n', {}, { jobId: 'b', keepLogs: 1 })
  const [a = '', b = ''] = await take('keeping', 2, { worker: 'me' })
  for (const lease of [a, b])
    await extend(lease, { leaseMs: 60_000, progress: { half: true }, log: 'a line' })
  await admin.set('bull:keeping:a:lock', 'of another')
  await extend(a, { log: 'never stored' }, 207)
  await settle([a, b], DONE, 207)
}

/** Jobs of schedulers: taking one adds the next. */
async function schedulers({ queue, take, end, admin }: WorkerApi): Promise<void> {
  const jobs = queue('schedulers')
  const second = { pattern: '* * * * * *' }
  await jobs.upsertJobScheduler('every', { every: 3_600_000 }, { name: 'n' })
  await end('schedulers', DONE)
  // The last id has the format of BullMQ 5.
  for (const id of ['cron', 'n:id:::* * * * * *']) {
    await jobs.upsertJobScheduler(id, second, { name: 'n' })
    await end('schedulers', DONE)
    await jobs.removeJobScheduler(id)
  }
  // The next job is due at once if a second passes between two readings of the clock. `immediately` makes it
  // so.
  for (const opts of [{}, { lifo: true }, { priority: 1 }]) {
    await jobs.upsertJobScheduler('due', second, { name: 'n', opts })
    const [job] = (await jobs.getDelayed()).filter(({ repeatJobKey }) => repeatJobKey === 'due')
    const key = `bull:schedulers:${job!.id}`
    const stored = JSON.parse((await admin.hget(key, 'opts'))!)
    await admin.hset(key, { opts: JSON.stringify({ ...stored, repeat: { ...second, immediately: true } }) })
    await jobs.setGlobalConcurrency(1)
    await end('schedulers', DONE)
    await take('schedulers')
    await jobs.removeJobScheduler('due')
    await jobs.obliterate({ force: true })
  }
}

/** A subscription from its first job to its deletion. The response to the fourth delivery pauses it. */
async function webhooks(t: Test, app: TestApp, { queue }: WorkerApi): Promise<void> {
  const receiver = await startReceiver(t)
  const jobs = queue('pushed')
  const call = async (method: 'DELETE' | 'GET' | 'POST' | 'PUT', status: number, path = '', body?: object) =>
    t.equal((await send(app, method, `/queues/pushed/subscription${path}`, body)).status, status, method)
  const answers = [200, 503, 200, 410, 200]
  receiver.answer = () => ({ status: answers.shift()! })
  const subscription = { url: receiver.url, concurrency: 2, rateLimit: { max: 1, duration: 20 } }
  await call('GET', 404)
  await call('PUT', 201, '', subscription)
  await call('POST', 201, '/secrets', {})
  const opts = { attempts: 2, backoff: 5, keepLogs: 3 }
  await jobs.addBulk(Array.from({ length: 3 }, () => ({ name: 'n', data: {}, opts })))
  const isPaused = async () => (await send(app, 'GET', '/queues/pushed/subscription')).body.paused !== null
  await eventually(isPaused)
  await call('PUT', 200, '', subscription)
  await eventually(async () => (await jobs.getCompletedCount()) === 3)
  await call('GET', 200)
  await call('DELETE', 204)
}
