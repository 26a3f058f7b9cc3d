/** Jobs in: one at a time, and by the batch. */
import { Queue } from 'bullmq'
import { type Measure, measure, median, medianOf, startTarget } from '../bench.ts'
import { startRedis } from '../private-redis.ts'
import { compare, job, json, type Scenario } from './scenario.ts'

export const single: Scenario = {
  name: 'single enqueue, 50 connections',
  shows: 'What one POST /jobs costs, beside a route that stores nothing and one that calls queue.add.',
  async run(effort) {
    const { ours, bare, shared, naive } = (await compare(['ours', 'bare', 'shared', 'naive'], effort, {
      path: '/jobs',
      method: 'POST',
      headers: json,
      body: JSON.stringify(job),
      connections: 50,
    })) as Record<'ours' | 'bare' | 'shared' | 'naive', Measure>
    return {
      rows: [ours, shared, bare, naive],
      goals: [
        { what: 'Redis commands per job', measured: ours.commands, atMost: 0.2 },
        { what: 'Node CPU, against bare', measured: ours.nodeUs / bare.nodeUs, atMost: 1.5 },
        { what: 'Node CPU, against shared', measured: ours.nodeUs / shared.nodeUs, atMost: 0.8 },
        { what: 'Redis CPU, against shared', measured: ours.redisUs / shared.redisUs, atMost: 0.75 },
        { what: 'rate, against shared', measured: ours.requestsPerS / shared.requestsPerS, atLeast: 1.15 },
      ],
    }
  },
}

export const batch: Scenario = {
  name: 'batch of 500',
  shows: "POST /jobs/batch over HTTP, beside BullMQ's own addBulk called directly, in process.",
  async run(effort) {
    const redis = await startRedis()
    const own = await startRedis()
    const ours = await startTarget('ours', { REDIS_SOCKET: redis.socket })
    try {
      const size = 500
      const body = JSON.stringify({ jobs: Array.from({ length: size }, () => job) })
      const load = { path: '/jobs/batch', method: 'POST' as const, headers: json, body, connections: 4 }
      const queue = new Queue('load', { connection: own.client })
      await measure(ours, undefined, { ...load, duration: 2 })
      await addBulkFor(queue, size, 1_000)
      const http: Measure[] = []
      const direct: number[] = []
      for (let round = 0; round < effort.rounds; round++) {
        await redis.client.flushall()
        http.push(await measure(ours, redis.client, { ...load, duration: effort.seconds }))
        await own.client.flushall()
        direct.push(await addBulkFor(queue, size, effort.seconds * 1_000))
      }
      const rate = median(http.map((round) => round.requestsPerS * size))
      return {
        rows: [medianOf(http)],
        goals: [
          {
            what: `jobs a second: ${rate} against ${Math.round(median(direct))} of addBulk`,
            measured: rate / median(direct),
            atLeast: 1,
          },
        ],
      }
    } finally {
      await ours.stop()
      await redis.stop()
      await own.stop()
    }
  },
}

/** Jobs a second, four calls in flight as over HTTP. */
async function addBulkFor(queue: Queue, size: number, ms: number): Promise<number> {
  const began = performance.now()
  let added = 0
  const caller = async () => {
    while (performance.now() - began < ms) {
      await queue.addBulk(Array.from({ length: size }, () => ({ name: job.name, data: job.data })))
      added += size
    }
  }
  await Promise.all([caller(), caller(), caller(), caller()])
  return added / ((performance.now() - began) / 1_000)
}
