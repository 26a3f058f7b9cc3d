/**
 * Ten thousand clients wait for jobs: what each costs while idle, and how soon all are notified of a
 * completion.
 */
import { Queue, Worker } from 'bullmq'
import { redisCost, startTarget, type Target } from '../bench.ts'
import { type HttpResponse, openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { type Goal, job, type Scenario } from './scenario.ts'

export const waiters: Scenario = {
  name: 'waiters',
  shows:
    'Clients wait until their job has finished: memory and connections while they wait, and how soon they are notified.',
  async run(effort) {
    const count = effort.isQuick ? 500 : 10_000
    const quietMs = effort.isQuick ? 500 : 2_000
    const shared = await measureWaiters(count, count / 100, quietMs)
    const own = await measureWaiters(count, count, quietMs)
    const bare = await measureBareWaiters(count)
    return {
      rows: [],
      goals: [
        {
          what: `memory per waiter with a job each, beyond that of a bare pending request (${kb(own.bytes)} KB in total, bare ${kb(bare.bytes)}), KB`,
          measured: kb(own.bytes - bare.bytes),
          atMost: 4,
        },
        { what: 'additional Redis connections while they wait', measured: own.connections, atMost: 0 },
        { what: 'Redis commands per second while they wait', measured: own.commandsPerS, atMost: 2 },
        {
          what: `time until all ${count} are notified after the last completion, 100 waiters per job, ms`,
          measured: shared.wokenMs,
          atMost: 500,
        },
        {
          what: `time until all ${count} are notified, one job each, ms (a bare route responds to as many in ${Math.round(bare.wokenMs)} ms)`,
          measured: own.wokenMs,
          atMost: 500,
        },
        ...shared.wrong,
        ...own.wrong,
      ],
    }
  },
}

interface WaiterCosts {
  bytes: number
  connections: number
  commandsPerS: number
  wokenMs: number
  wrong: Goal[]
}

/** `count` clients wait for `jobs` jobs, which are then completed at once. */
async function measureWaiters(count: number, jobs: number, quietMs: number): Promise<WaiterCosts> {
  const redis = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const clients = await openClients(target.url, count, '/health/live')
  try {
    const finish = await takeJobs(redis, jobs)
    const before = { bytes: await target.memory(), redis: await redisCost(redis.client) }
    const responses: HttpResponse[] = []
    let lastAt = 0
    const waiting = clients.map(async (client, i) => {
      responses.push(await client.get(`/jobs/load:job-${i % jobs}?wait=30`))
      lastAt = performance.now()
    })
    await until(async () => (await waitingAt(target)) === count)
    // Their first reads are still in flight.
    await new Promise((resolve) => setTimeout(resolve, 500))
    const loaded = { bytes: await target.memory(), redis: await redisCost(redis.client) }
    await new Promise((resolve) => setTimeout(resolve, quietMs))
    const quiet = await redisCost(redis.client)
    const finishedAt = await finish()
    await Promise.all(waiting)
    const wrong = responses.filter(
      ({ status, body }) => status !== 200 || JSON.parse(body).state !== 'completed',
    ).length
    return {
      bytes: (loaded.bytes - before.bytes) / count,
      connections: loaded.redis.connections - before.redis.connections,
      commandsPerS: (quiet.commands - loaded.redis.commands - 1) / (quietMs / 1_000),
      wokenMs: lastAt - finishedAt,
      wrong: wrong === 0 ? [] : [{ what: 'responses without the completed job', measured: wrong, atMost: 0 }],
    }
  } finally {
    for (const client of clients) client.close()
    await target.stop()
    await redis.stop()
  }
}

/** The same number of pending requests on a bare route: the cost of HTTP alone. */
async function measureBareWaiters(count: number): Promise<{ bytes: number; wokenMs: number }> {
  const target = await startTarget('bare', {})
  const clients = await openClients(target.url, count, '/jobs/1')
  try {
    const before = await target.memory()
    const waiting = clients.map((client) => client.get('/hang/1'))
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    const bytes = ((await target.memory()) - before) / count
    await fetch(`${target.url}/release`)
    const releasedAt = performance.now()
    await Promise.all(waiting)
    return { bytes, wokenMs: performance.now() - releasedAt }
  } finally {
    for (const client of clients) client.close()
    await target.stop()
  }
}

/**
 * Leases all jobs with a native worker. The returned function completes them and returns the time of the last
 * one.
 */
async function takeJobs(redis: PrivateRedis, count: number): Promise<() => Promise<number>> {
  const connection = { path: redis.socket, maxRetriesPerRequest: null }
  const queue = new Queue('load', { connection: redis.client })
  await queue.addBulk(
    Array.from({ length: count }, (_, i) => ({
      name: job.name,
      data: job.data,
      opts: { jobId: `job-${i}` },
    })),
  )
  const worker = new Worker('load', null, { connection, autorun: false, lockDuration: 120_000 })
  worker.on('error', (error) => console.error(error.message))
  const taken = await Promise.all(Array.from({ length: count }, () => worker.getNextJob('load')))
  return async () => {
    await Promise.all(taken.map((one) => one!.moveToCompleted({ done: true }, 'load', false)))
    const finishedAt = performance.now()
    await worker.close()
    return finishedAt
  }
}

async function waitingAt(target: Target): Promise<number> {
  return ((await (await fetch(`${target.url}/stats`)).json()) as { waiting: number }).waiting
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (await condition()) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('The condition was not met within 10 s')
}

function kb(bytes: number): number {
  return Math.round(bytes / 102.4) / 10
}
