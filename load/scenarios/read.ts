/** Status reads, from the cache and without it. */
import { Queue } from 'bullmq'
import type { Load, Target } from '../bench.ts'
import type { PrivateRedis } from '../private-redis.ts'
import { compare, type Goal, job, type Scenario, type Side } from './scenario.ts'

export const hot: Scenario = {
  name: 'hot read',
  shows:
    'GET /jobs/:id from the cache, compared with a bare route that sends the same bytes and one that reads from Redis.',
  async run(effort) {
    // The service's own response, which the bare route sends too.
    let body = ''
    const prepare = async (redis: PrivateRedis, target: Target): Promise<Partial<Load>> => {
      await addWaitingJobs(redis, 1)
      body = await (await fetch(`${target.url}/jobs/load:job-0`)).text()
      return {}
    }
    const sides: Side[] = [
      { target: 'ours', env: () => ({ CACHE_TTL_SHORT: '86400000' }), prepare },
      { target: 'shared', prepare: async (redis) => addWaitingJobs(redis, 1).then(() => ({})) },
      { target: 'bare', env: () => ({ BARE_BODY: body }) },
    ]
    const settings = [{ name: '50 connections', load: { path: '/jobs/load:job-0', connections: 50 } }]
    const { rows, of } = await compare(this.name, sides, settings, effort)
    const [ours, shared, bare] = [of('ours'), of('shared'), of('bare')]
    return {
      rows,
      goals: [
        { what: 'CPU, against bare', measured: ours.nodeUs / bare.nodeUs, atMost: 1.4 },
        { what: 'rate, against bare', measured: ours.requestsPerS / bare.requestsPerS, atLeast: 0.8 },
        { what: 'rate, against shared', measured: ours.requestsPerS / shared.requestsPerS, atLeast: 2.5 },
        // Following the queue's events costs one command per second, not one per read.
        { what: 'Redis commands per read', measured: ours.commands, atMost: 0.001 },
      ],
    }
  },
}

export const cold: Scenario = {
  name: 'cold read',
  shows:
    'Status reads with the cache off, from queues of different lengths. BullMQ searches the whole list for a waiting job.',
  async run(effort) {
    const noCache = () => ({ CACHE_TTL_SHORT: '0', CACHE_TTL_LONG: '0', CACHE_TTL_MISSING: '0' })
    const backlogs = effort.isQuick ? [1_000, 5_000] : [1_000, 100_000, 500_000]
    const rows = []
    const goals: Goal[] = []
    let first: number | undefined
    for (const backlog of backlogs) {
      const prepare = async (redis: PrivateRedis): Promise<Partial<Load>> => {
        await addWaitingJobs(redis, backlog)
        const step = Math.max(1, Math.floor(backlog / 200))
        const keys = Array.from({ length: Math.min(200, backlog) }, (_, i) => `job-${i * step}`)
        return { requests: keys.map((key) => ({ method: 'GET' as const, path: `/jobs/load:${key}` })) }
      }
      const sides: Side[] = [
        { target: 'ours', env: noCache, prepare },
        { target: 'shared', prepare },
      ]
      const name = `${backlog.toLocaleString('en')} waiting`
      const settings = [{ name, load: { connections: 10 } }]
      const { rows: both, of } = await compare(this.name, sides, settings, effort)
      rows.push(...both)
      const [ours, shared] = [of('ours'), of('shared')]
      first ??= ours.redisUs
      if (backlog === backlogs[0]) continue
      goals.push({
        what: `Redis CPU with ${name}, against 1,000`,
        measured: ours.redisUs / first,
        atMost: 1.3,
      })
      const measured = ours.requestsPerS / Math.max(1, shared.requestsPerS)
      if (backlog >= 500_000)
        goals.push({ what: `rate with ${name}, against shared`, measured, atLeast: 100 })
    }
    return { rows, goals }
  },
}

/** Adds the waiting jobs `job-0`, `job-1`, … */
export async function addWaitingJobs(redis: PrivateRedis, count: number): Promise<void> {
  const queue = new Queue('load', { connection: redis.client })
  for (let from = 0; from < count; from += 1_000) {
    const size = Math.min(1_000, count - from)
    await queue.addBulk(
      Array.from({ length: size }, (_, i) => ({
        name: job.name,
        data: job.data,
        opts: { jobId: `job-${from + i}` },
      })),
    )
  }
}
