/** Ten thousand clients wait for jobs: what each costs while nothing happens, and how soon all know when something does. */
import { Queue, Worker } from 'bullmq'
import { redisCost, startTarget, type Target } from '../bench.ts'
import { type Answer, openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { type Goal, job, type Scenario } from './scenario.ts'

export const waiters: Scenario = {
  name: 'waiters',
  shows:
    'Clients that are held until their job is done: memory and connections while they wait, and how soon they know.',
  async run(effort) {
    const count = effort.isQuick ? 500 : 10_000
    const quietMs = effort.isQuick ? 500 : 2_000
    const shared = await hold(count, count / 100, quietMs)
    const own = await hold(count, count, quietMs)
    const bare = await holdBare(count)
    return {
      rows: [],
      goals: [
        {
          what: `memory per waiter, own job each, beyond a bare route that hangs (${kb(own.bytes)} KB in all, bare ${kb(bare.bytes)}), KB`,
          measured: kb(own.bytes - bare.bytes),
          atMost: 4,
        },
        { what: 'Redis connections while they wait, beyond before', measured: own.connections, atMost: 0 },
        { what: 'Redis commands a second while they wait', measured: own.commandsPerS, atMost: 2 },
        {
          what: `all ${count} woken, 100 waiters a job, after the last completion, ms`,
          measured: shared.wokenMs,
          atMost: 500,
        },
        {
          what: `all ${count} woken, each on a job of its own, ms (a bare route answers as many that it held in ${Math.round(bare.wokenMs)} ms)`,
          measured: own.wokenMs,
          atMost: 500,
        },
        ...shared.wrong,
        ...own.wrong,
      ],
    }
  },
}

interface Held {
  bytes: number
  connections: number
  commandsPerS: number
  wokenMs: number
  wrong: Goal[]
}

/** `count` clients wait for `jobs` jobs, which are then completed at once. */
async function hold(count: number, jobs: number, quietMs: number): Promise<Held> {
  const redis = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const clients = await openClients(target.url, count, '/health/live')
  try {
    const finish = await takeJobs(redis, jobs)
    const before = { bytes: await target.memory(), redis: await redisCost(redis.client) }
    const answers: Answer[] = []
    let lastAt = 0
    const waiting = clients.map(async (client, i) => {
      answers.push(await client.get(`/jobs/load:job-${i % jobs}?wait=30`))
      lastAt = performance.now()
    })
    await until(async () => (await waitingAt(target)) === count)
    // Their first looks are still under way.
    await new Promise((resolve) => setTimeout(resolve, 500))
    const held = { bytes: await target.memory(), redis: await redisCost(redis.client) }
    await new Promise((resolve) => setTimeout(resolve, quietMs))
    const quiet = await redisCost(redis.client)
    const finishedAt = await finish()
    await Promise.all(waiting)
    const wrong = answers.filter(
      ({ status, body }) => status !== 200 || JSON.parse(body).state !== 'completed',
    ).length
    return {
      bytes: (held.bytes - before.bytes) / count,
      connections: held.redis.connections - before.redis.connections,
      commandsPerS: (quiet.commands - held.redis.commands - 1) / (quietMs / 1_000),
      wokenMs: lastAt - finishedAt,
      wrong:
        wrong === 0 ? [] : [{ what: 'answers that were not the completed job', measured: wrong, atMost: 0 }],
    }
  } finally {
    for (const client of clients) client.close()
    await target.stop()
    await redis.stop()
  }
}

/** The same requests, held by a route that does nothing: what HTTP costs. */
async function holdBare(count: number): Promise<{ bytes: number; wokenMs: number }> {
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

/** Jobs in the hands of a native worker; what is returned completes them all and tells when the last one was. */
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
  throw new Error('not so within 10 s')
}

function kb(bytes: number): number {
  return Math.round(bytes / 102.4) / 10
}
