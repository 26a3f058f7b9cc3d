/** The scenarios: what each shows, which targets meet in it, and the goals it has to reach. */
import { Queue } from 'bullmq'
import {
  type Load,
  type Measure,
  measure,
  median,
  medianOf,
  redisCost,
  startTarget,
  type Target,
} from './bench.ts'
import { type PrivateRedis, startRedis } from './private-redis.ts'

export interface Goal {
  what: string
  measured: number
  /** `measured` has to be at most, or at least, this. */
  atMost?: number
  atLeast?: number
}

export interface Outcome {
  rows: Measure[]
  goals: Goal[]
}

export interface Scenario {
  name: string
  shows: string
  run(effort: Effort): Promise<Outcome>
}

export interface Effort {
  rounds: number
  seconds: number
  /** Jobs of a long queue. */
  backlog: number
}

const json = { 'content-type': 'application/json' }
const job = {
  queue: 'load',
  name: 'welcome',
  data: { to: 'ann@example.com', template: 'welcome', locale: 'en', userId: 4711 },
}

/** Each target on a Redis of its own; a warm-up; then rounds in turn, so that a noisy machine hits all alike. */
async function compare(
  names: string[],
  effort: Effort,
  load: Load,
  env: Record<string, string> = {},
): Promise<Record<string, Measure>> {
  const redises: PrivateRedis[] = []
  const targets: { target: Target; redis: PrivateRedis }[] = []
  try {
    for (const name of names) {
      const redis = await startRedis()
      redises.push(redis)
      targets.push({ target: await startTarget(name, { REDIS_SOCKET: redis.socket, ...env }), redis })
    }
    for (const { target } of targets) await measure(target, undefined, { ...load, duration: 2 })
    const rounds: Record<string, Measure[]> = {}
    for (let round = 0; round < effort.rounds; round++) {
      for (const { target, redis } of targets) {
        await redis.client.flushall()
        const measured = await measure(target, redis.client, { ...load, duration: effort.seconds })
        const list = rounds[target.name] ?? []
        list.push(measured)
        rounds[target.name] = list
      }
    }
    return Object.fromEntries(Object.entries(rounds).map(([name, list]) => [name, medianOf(list)]))
  } finally {
    for (const { target } of targets) await target.stop()
    for (const redis of redises) await redis.stop()
  }
}

const single: Scenario = {
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

const hot: Scenario = {
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
          // The two INFO that frame each round are the measurement's own.
          { what: 'Redis commands per read', measured: Math.round(mine.commands * 1000) / 1000, atMost: 0 },
        ],
      }
    } finally {
      await ours.stop()
      await redis.stop()
    }
  },
}

const cold: Scenario = {
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

const batch: Scenario = {
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

const idle: Scenario = {
  name: 'idle with 50 queues',
  shows: 'What the service costs Redis while nobody asks for anything.',
  async run(effort) {
    const redis = await startRedis()
    const ours = await startTarget('ours', { REDIS_SOCKET: redis.socket })
    try {
      for (let index = 0; index < 50; index++) {
        await fetch(`${ours.url}/jobs`, {
          method: 'POST',
          headers: json,
          body: JSON.stringify({ ...job, queue: `queue-${index}` }),
        })
      }
      const before = await redisCost(redis.client)
      await new Promise((resolve) => setTimeout(resolve, effort.seconds * 1_000))
      const after = await redisCost(redis.client)
      // One of each is the measurement's own: the command, and the connection that sends it.
      return {
        rows: [],
        goals: [
          {
            what: 'Redis commands a second',
            measured: (after.commands - before.commands - 1) / effort.seconds,
            atMost: 1,
          },
          { what: 'connections', measured: after.connections - 1, atMost: 5 },
        ],
      }
    } finally {
      await ours.stop()
      await redis.stop()
    }
  },
}

export const scenarios: Scenario[] = [single, hot, cold, batch, idle]
