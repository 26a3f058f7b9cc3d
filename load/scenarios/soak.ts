/** A long run that detects growth, slowdown and failures. */
import { type Measure, measure, startTarget, type Target } from '../bench.ts'
import { openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { addWaitingJobs } from './read.ts'
import { job, json, type Scenario } from './scenario.ts'

/** Enough that the cache evicts most jobs before they are read again. */
const JOBS = 20_000
const WAITERS = 50

export const soak: Scenario = {
  name: 'soak',
  shows:
    'Reads of 20,000 jobs, enqueues, and clients that wait and disconnect, in several parts. Redis is flushed and refilled before each part; the rows are rates and memory of each part.',
  async run({ isQuick, seconds }) {
    const parts = isQuick ? 2 : 8
    const redis = await startRedis()
    const target = await startTarget('ours', {
      REDIS_SOCKET: redis.socket,
      MAX_CONNECTIONS: '0',
      // The service warns about every flush of Redis.
      LOG_LEVEL: 'error',
    })
    try {
      const rows: Measure[] = []
      const memory: number[] = []
      for (let part = 1; part <= parts; part++) {
        progress(`soak · part ${part} of ${parts}`)
        rows.push({
          ...(await runPart(target, redis, isQuick ? 2_000 : JOBS, isQuick ? 1 : 2 * seconds)),
          setting: `part ${part}`,
        })
        memory.push(await target.memory())
      }
      // The first part warms up the JIT and the cache.
      const [second = rows[0]!] = rows.slice(1)
      const grown = (memory.at(-1)! - (memory[1] ?? memory[0]!)) / 1_048_576
      return {
        rows,
        goals: [
          {
            what: 'Node CPU of the last part, against the second',
            measured: rows.at(-1)!.nodeUs / second.nodeUs,
            atMost: 1.25,
          },
          { what: 'heap and buffers grown since the second part, MB', measured: grown, atMost: 10 },
          { what: 'connections to Redis', measured: rows.at(-1)!.connections, atMost: 4 },
        ],
      }
    } finally {
      await target.stop()
      await redis.stop()
    }
  },
}

async function runPart(target: Target, redis: PrivateRedis, jobs: number, seconds: number): Promise<Measure> {
  await redis.client.flushall()
  await addWaitingJobs(redis, jobs)
  const post = { method: 'POST' as const, path: '/jobs', headers: json, body: JSON.stringify(job) }
  const get = () => ({
    method: 'GET' as const,
    path: `/jobs/load:job-${Math.floor(Math.random() * jobs)}`,
  })
  const requests = Array.from({ length: 5_000 }, (_, i) => (i % 10 < 3 ? post : get()))
  const waiting = waitAndDisconnect(target, seconds)
  const measured = await measure(target, redis.client, { requests, connections: 50, duration: seconds })
  await waiting
  return measured
}

/** Clients that wait for jobs without a worker; every other one disconnects before its response. */
async function waitAndDisconnect(target: Target, seconds: number): Promise<void> {
  const until = performance.now() + seconds * 1_000
  while (performance.now() < until) {
    const clients = await openClients(target.url, WAITERS, '/health/live')
    const responses = clients.map((client, i) => client.get(`/jobs/load:job-${i}?wait=1`))
    const stayed = responses.filter((_, i) => i % 2 === 0)
    for (const response of responses) response.catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 300))
    for (const [i, client] of clients.entries()) if (i % 2 === 1) client.close()
    await Promise.all(stayed)
    for (const client of clients) client.close()
  }
}
