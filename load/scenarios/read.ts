/** Statuses out: of a job in memory, and of jobs that are not. */
import { Queue } from 'bullmq'
import { type Load, type Measure, measure, medianOf, startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { job, json, type Scenario } from './scenario.ts'

export const hot: Scenario = {
  name: 'hot read',
  shows: 'A GET /jobs/:id out of memory, beside a bare route that sends the same bytes.',
  async run(effort) {
    const redis = await startRedis()
    const ours = await startTarget('ours', { REDIS_SOCKET: redis.socket, CACHE_TTL_SHORT: '86400000' })
    try {
      const added = await fetch(`${ours.url}/jobs`, {
        method: 'POST',
        headers: json,
        body: JSON.stringify(job),
      })
      const { id } = (await added.json()) as { id: string }
      const body = await (await fetch(`${ours.url}/jobs/${id}`)).text()
      const bare = await startTarget('bare', { BARE_BODY: body })
      const load = { path: `/jobs/${id}`, connections: 50 }
      const rounds: Measure[][] = [[], []]
      for (const target of [ours, bare]) await measure(target, undefined, { ...load, duration: 2 })
      for (let round = 0; round < effort.rounds; round++) {
        rounds[0]!.push(await measure(ours, redis.client, { ...load, duration: effort.seconds }))
        rounds[1]!.push(await measure(bare, undefined, { ...load, duration: effort.seconds }))
      }
      await bare.stop()
      const [mine, limit] = rounds.map(medianOf) as [Measure, Measure]
      return {
        rows: [mine, limit],
        goals: [
          { what: 'CPU, against bare', measured: mine.nodeUs / limit.nodeUs, atMost: 1.4 },
          // While somebody looks, events are heard by one command a second.
          { what: 'Redis commands per read', measured: mine.commands, atMost: 0.001 },
        ],
      }
    } finally {
      await ours.stop()
      await redis.stop()
    }
  },
}

export const cold: Scenario = {
  name: 'cold read and the backlog',
  shows: 'What a status read costs Redis with 1,000 jobs waiting and with a long queue.',
  async run(effort) {
    const noCache = { CACHE_TTL_SHORT: '0', CACHE_TTL_LONG: '0', CACHE_TTL_MISSING: '0' }
    const sides: { target: Target; redis: PrivateRedis; load: Load; rounds: Measure[] }[] = []
    try {
      for (const backlog of [1_000, effort.backlog]) {
        const redis = await startRedis()
        const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, ...noCache })
        const ids = await fill(redis, backlog)
        const requests = ids.map((id) => ({ method: 'GET' as const, path: `/jobs/load:${id}` }))
        sides.push({
          target: { ...target, name: `ours, ${backlog} waiting` },
          redis,
          load: { requests, connections: 10 },
          rounds: [],
        })
      }
      for (const { target, load } of sides) await measure(target, undefined, { ...load, duration: 2 })
      for (let round = 0; round < effort.rounds; round++) {
        for (const { target, redis, load, rounds } of sides) {
          rounds.push(await measure(target, redis.client, { ...load, duration: effort.seconds }))
        }
      }
      const [short, long] = sides.map(({ rounds }) => medianOf(rounds)) as [Measure, Measure]
      return {
        rows: [short, long],
        goals: [
          {
            what: `Redis CPU at ${effort.backlog}, against 1,000`,
            measured: long.redisUs / short.redisUs,
            atMost: 1.3,
          },
        ],
      }
    } finally {
      for (const { target, redis } of sides) {
        await target.stop()
        await redis.stop()
      }
    }
  },
}

/** Fills the queue and returns ids from all over it. */
async function fill(redis: PrivateRedis, count: number): Promise<string[]> {
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
  const step = Math.max(1, Math.floor(count / 200))
  return Array.from({ length: Math.min(200, count) }, (_, i) => `job-${i * step}`)
}
