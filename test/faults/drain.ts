/**
 * Finds what the queues really contain: every job key in Redis in any state, read without the service and without BullMQ,
 * and what a native BullMQ worker receives when it runs all jobs.
 */
import { Worker } from 'bullmq'
import type { Redis } from 'ioredis'
import type { Seen } from './checker.ts'
import type { RedisServer } from './processes.ts'
import { sleep, until } from './timing.ts'

export const PREFIX = 'bull'

const LISTS = ['wait', 'paused', 'active']
const SETS = ['delayed', 'prioritized', 'waiting-children', 'completed', 'failed']

export interface Draining {
  /** Errors of the worker. */
  readonly errors: string[]
  executed(): number
  /** Waits until the queues are empty or the timeout; returns everything seen since the start, and what is there now. */
  finish(timeoutMs?: number): Promise<Seen>
}

/** Runs all jobs, present and future, until `finish` is called. */
export async function startDrain(redis: RedisServer, queues: string[]): Promise<Draining> {
  const { client, place } = redis
  const { password } = client.options
  const address = 'path' in place ? { path: place.path } : { port: place.port, host: '127.0.0.1' }
  const connection = { ...address, ...(password ? { password } : {}), maxRetriesPerRequest: null }
  const jobs: Seen['jobs'] = new Map()
  const executions: Seen['executions'] = new Map()
  const errors: string[] = []
  const workers = queues.map(
    (queue) =>
      new Worker(
        queue,
        async ({ id, data }) => {
          const { payload } = data as { payload: string }
          executions.set(payload, (executions.get(payload) ?? 0) + 1)
          recordId(jobs, payload, `${queue}:${id}`)
        },
        { connection, prefix: PREFIX, concurrency: 50 },
      ),
  )
  for (const worker of workers) worker.on('error', ({ message }) => errors.push(message))
  await Promise.all(workers.map((worker) => worker.waitUntilReady()))
  return {
    errors,
    executed: () => executions.size,
    async finish(timeoutMs = 60_000) {
      const isEmpty = async () => (await countUnfinished(client, queues)) === 0
      const broken: string[] = []
      await until('the queues are empty', isEmpty, timeoutMs, 50).catch(async () => {
        broken.push(`${await countUnfinished(client, queues)} jobs that no worker could finish`)
      })
      await Promise.all(workers.map((worker) => worker.close(broken.length > 0)))
      for (const queue of queues) broken.push(...(await readQueue(client, queue, jobs)))
      return { jobs, executions, broken }
    },
  }
}

/** Reads all jobs, then runs them. */
export async function drain(redis: RedisServer, queues: string[]): Promise<Seen> {
  // Persistence is no longer under test, so speed up Redis.
  await redis.client.config('SET', 'appendfsync', 'no')
  const before: Seen['jobs'] = new Map()
  const broken: string[] = []
  for (const queue of queues) broken.push(...(await readQueue(redis.client, queue, before)))
  const seen = await (await startDrain(redis, queues)).finish()
  for (const [payload, ids] of before) for (const id of ids) recordId(seen.jobs, payload, id)
  return { ...seen, broken: [...broken, ...seen.broken] }
}

function recordId(jobs: Seen['jobs'], payload: string, id: string): void {
  const ids = jobs.get(payload)
  if (ids) ids.add(id)
  else jobs.set(payload, new Set([id]))
}

/** The number of unfinished jobs. */
async function countUnfinished(client: Redis, queues: string[]): Promise<number> {
  const pipeline = client.pipeline()
  for (const queue of queues) {
    for (const list of LISTS) pipeline.llen(`${PREFIX}:${queue}:${list}`)
    for (const set of ['delayed', 'prioritized', 'waiting-children']) {
      pipeline.zcard(`${PREFIX}:${queue}:${set}`)
    }
  }
  const counts = (await pipeline.exec()) ?? []
  return counts.reduce((sum, [, count]) => sum + Number(count), 0)
}

/** Adds the jobs of a queue to `jobs`; returns the keys of jobs that are incomplete in two reads. */
async function readQueue(client: Redis, queue: string, jobs: Seen['jobs']): Promise<string[]> {
  const halves = await readQueueOnce(client, queue, jobs)
  if (halves.length === 0) return halves
  // One read takes many commands; a job that changes in between only seems incomplete.
  await sleep(300)
  const still = new Set(await readQueueOnce(client, queue, jobs))
  return halves.filter((half) => still.has(half))
}

async function readQueueOnce(client: Redis, queue: string, jobs: Seen['jobs']): Promise<string[]> {
  const base = `${PREFIX}:${queue}:`
  const states = new Map<string, number>()
  const listed = await Promise.all([
    ...LISTS.map((list) => client.lrange(base + list, 0, -1)),
    ...SETS.map((set) => client.zrange(base + set, '0', '-1')),
  ])
  for (const key of listed.flat()) states.set(key, (states.get(key) ?? 0) + 1)
  const found = new Set<string>()
  for (let cursor = '0'; ; ) {
    const [next, keys] = await client.scan(cursor, 'MATCH', `${base}*`, 'COUNT', 1_000)
    const pipeline = client.pipeline()
    for (const key of keys) pipeline.hmget(key, 'name', 'timestamp', 'data')
    const hashes = (await pipeline.exec()) ?? []
    hashes.forEach(([, fields], i) => {
      const [name, timestamp, data] = (fields ?? []) as (string | null)[]
      // The queue's own keys have none of these fields.
      if (!name || !timestamp) return
      const key = keys[i]!.slice(base.length)
      found.add(key)
      recordId(jobs, (JSON.parse(data ?? '{}') as { payload?: string }).payload ?? key, `${queue}:${key}`)
    })
    if (next === '0') break
    cursor = next
  }
  const halves = [...found].filter((key) => states.get(key) !== 1)
  const names = [...states.keys()].filter((key) => !found.has(key))
  return [...halves, ...names].map((key) => `${queue}:${key}`)
}
