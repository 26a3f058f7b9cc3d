/** Enqueueing: single jobs, small and large payloads, and batches. */
import { Queue } from 'bullmq'
import { type Measure, measure, median, medianOf, startTarget } from '../bench.ts'
import { startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { compare, type Effort, type Goal, job, json, type Scenario, type Setting } from './scenario.ts'

const post = { path: '/jobs', method: 'POST' as const, headers: json }

export const single: Scenario = {
  name: 'single enqueue',
  shows:
    'The cost of one POST /jobs, compared with a route that stores nothing and one that calls queue.add.',
  async run(effort) {
    const counts = effort.isQuick ? [50] : [1, 50, 500]
    const settings = counts.map((connections): Setting => {
      const name = connections === 1 ? '1 connection' : `${connections} connections`
      return { name, load: { ...post, body: JSON.stringify(job), connections } }
    })
    const { rows, of } = await compare(this.name, ['ours', 'shared', 'naive', 'bare'], settings, effort)
    const at50 = (target: string) => of(target, '50 connections')
    const [ours, shared, naive, bare] = [at50('ours'), at50('shared'), at50('naive'), at50('bare')]
    const goals: Goal[] = [
      { what: 'Redis commands per job', measured: ours.commands, atMost: 0.2 },
      { what: 'rate, against shared', measured: ours.requestsPerS / shared.requestsPerS, atLeast: 1.2 },
      { what: 'Node CPU, against shared', measured: ours.nodeUs / shared.nodeUs, atMost: 0.75 },
      { what: 'Redis CPU, against shared', measured: ours.redisUs / shared.redisUs, atMost: 0.7 },
      { what: 'rate, against naive', measured: ours.requestsPerS / naive.requestsPerS, atLeast: 30 },
      { what: 'rate, against bare', measured: ours.requestsPerS / bare.requestsPerS, atLeast: 0.62 },
    ]
    if (!effort.isQuick) {
      const [mine, theirs] = [of('ours', '500 connections'), of('shared', '500 connections')]
      const measured = mine.requestsPerS / theirs.requestsPerS
      goals.push({ what: 'rate at 500 connections, against shared', measured, atLeast: 1.4 })
      goals.push({ what: 'RSS at 500 connections, MB', measured: mine.rssMb, atMost: 150 })
    }
    return { rows, goals }
  },
}

export const payloads: Scenario = {
  name: 'payloads',
  shows: 'Single enqueues of 100 bytes, 10 KB and 200 KB.',
  async run(effort) {
    const sizes: [name: string, bytes: number][] = effort.isQuick
      ? [['10 KB', 10_240]]
      : [
          ['100 bytes', 100],
          ['10 KB', 10_240],
          ['200 KB', 204_800],
        ]
    const settings = sizes.map(([name, bytes]): Setting => {
      const body = JSON.stringify({ ...job, data: { text: 'x'.repeat(bytes) } })
      return { name, load: { ...post, body, connections: 50 } }
    })
    const { rows, of } = await compare(this.name, ['ours', 'shared', 'bare'], settings, effort)
    return {
      rows,
      goals: sizes.map(([name]) => ({
        what: `rate with ${name}, against shared`,
        measured: of('ours', name).requestsPerS / of('shared', name).requestsPerS,
        atLeast: 1,
      })),
    }
  },
}

export const batch: Scenario = {
  name: 'batch',
  shows:
    "POST /jobs/batch, four requests in flight, compared with BullMQ's addBulk called in process. Rates count batches.",
  async run(effort) {
    const rows: Measure[] = []
    const goals: Goal[] = []
    for (const size of effort.isQuick ? [500] : [10, 100, 500]) {
      const { ours, direct } = await compareBatches(size, effort)
      rows.push(ours, direct)
      goals.push({
        what: `jobs per second in batches of ${size}: ${ours.requestsPerS * size} against ${direct.requestsPerS * size}`,
        measured: ours.requestsPerS / direct.requestsPerS,
        // Small batches have few jobs to spread the cost of HTTP over.
        atLeast: size >= 500 ? 1.1 : 0,
      })
    }
    return { rows, goals: goals.filter(({ atLeast }) => atLeast !== 0) }
  },
}

async function compareBatches(size: number, effort: Effort) {
  const { rounds, seconds, isQuick } = effort
  const redis = await startRedis()
  const own = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket })
  try {
    const body = JSON.stringify({ jobs: Array.from({ length: size }, () => job) })
    const load = { path: '/jobs/batch', method: 'POST' as const, headers: json, body, connections: 4 }
    const queue = new Queue('load', { connection: own.client })
    if (!isQuick) {
      await measure(target, undefined, { ...load, duration: 1 })
      await measureAddBulk(queue, size, 1_000)
    }
    const ours: Measure[] = []
    const direct: number[] = []
    for (let round = 0; round < rounds; round++) {
      progress(`batch · ${size} jobs · round ${round + 1} of ${rounds}`)
      await redis.client.flushall()
      ours.push(
        await measure(target, redis.client, {
          ...load,
          ...(isQuick ? { amount: 40, sampleInt: 50 } : { duration: seconds }),
        }),
      )
      await own.client.flushall()
      direct.push(await measureAddBulk(queue, size, seconds * 1_000))
    }
    const setting = `${size} jobs`
    return {
      ours: { ...medianOf(ours), setting },
      direct: { ...unmeasured, target: 'addBulk', setting, requestsPerS: Math.round(median(direct) / size) },
    }
  } finally {
    await target.stop()
    await redis.stop()
    await own.stop()
  }
}

/** addBulk runs in the process of the load generator, so only its rate can be measured. */
const unmeasured = {
  p50Ms: Number.NaN,
  p99Ms: Number.NaN,
  p999Ms: Number.NaN,
  nodeUs: Number.NaN,
  redisUs: Number.NaN,
  commands: Number.NaN,
  connections: Number.NaN,
  rssMb: Number.NaN,
  errors: 0,
}

/** Jobs per second with four calls in flight, as over HTTP. */
async function measureAddBulk(queue: Queue, size: number, ms: number): Promise<number> {
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
