/**
 * Our one command leaves in Redis, key by key and byte by byte, what BullMQ's own `queue.add` leaves for the same job: hashes,
 * lists, scores, TTLs, counters and stream entries. Each option by itself, and those that interact in every combination.
 */

import { type JobsOptions, Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createEnqueuer } from '../../../src/jobs/enqueue/enqueuer.ts'
import { createQueueRegistry } from '../../../src/queues/queue-registry.ts'
import { createSharedBackends } from '../../../src/queues/shared-backend.ts'
import { computeConnectionBudget } from '../../../src/redis/connection/connection-budget.ts'
import { createRedisConnections } from '../../../src/redis/connection/connections.ts'
import { createRedisGateway } from '../../../src/redis/gateway/redis-gateway.ts'
import { createSemaphore } from '../../../src/redis/gateway/semaphore.ts'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import { eventually, testConfig } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { callsByCommand } from '../../helpers/streams.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const TIMESTAMP = 1_790_000_000_000

interface Step {
  name?: string
  data?: unknown
  opts: JobsOptions
}

/** Adds the steps one after the other with BullMQ, with a fixed clock. */
async function withBullmq(
  prefix: string,
  steps: Step[],
  before: (client: Redis) => Promise<unknown>,
): Promise<unknown> {
  const queue = new Queue('q', { connection: redis.client, prefix, skipMetasUpdate: true })
  await before(redis.client)
  const ids: unknown[] = []
  for (const { name = 'n', data = {}, opts } of steps) {
    const job = await queue.add(name, data, { ...opts, timestamp: TIMESTAMP })
    ids.push(job.id)
  }
  return ids
}

/** Adds the steps with our enqueuer: one by one, or all in one command. */
async function withOurs(
  prefix: string,
  steps: Step[],
  atOnce: boolean,
  before: (client: Redis) => Promise<unknown>,
): Promise<unknown> {
  const config = testConfig({
    QUEUE_PREFIX: prefix,
    DEFAULT_KEEP_COMPLETED_AGE: '0',
    DEFAULT_KEEP_FAILED_AGE: '0',
  })
  const log = pino({ level: 'silent' })
  const connections = createRedisConnections(config, redis, computeConnectionBudget(config, 1), log)
  await eventually(() => connections.all.every((connection) => connection.ready))
  const gateway = createRedisGateway(config, connections, createSemaphore(100, 100))
  const keyspace = createKeyspace(prefix)
  const registry = createQueueRegistry({
    keyspace,
    connections,
    gateway,
    maxKnown: 1_000,
    idleMs: 86_400_000,
    backendOf: createSharedBackends(keyspace, connections),
  })
  const enqueuer = createEnqueuer({
    config,
    keyspace,
    registry,
    gateway,
    confirm: undefined,
    clock: { nowMs: () => TIMESTAMP },
    admit: () => {},
    onWrite: () => {},
    onStored: () => {},
  })
  await before(redis.client)
  const jobs = steps.map(({ name = 'n', data = {}, opts }) => ({
    queue: 'q',
    name,
    data: Buffer.from(JSON.stringify(data)),
    opts,
  }))
  const keys: string[] = []
  try {
    if (atOnce) for (const added of await Promise.all(enqueuer.addMany(jobs))) keys.push(added.key)
    else for (const job of jobs) keys.push((await enqueuer.add(job)).key)
  } finally {
    await enqueuer.close()
    await registry.close()
    await connections.close()
    gateway.close()
  }
  return keys
}

/** Everything under the prefix, with types, values and TTLs in steps of three seconds; the prefix itself is replaced. */
async function snapshot(prefix: string): Promise<Record<string, unknown>> {
  const { client } = redis
  const found: Record<string, unknown> = {}
  for (const key of (await client.keys(`${prefix}:*`)).sort()) {
    if (key.startsWith(`${prefix}::sluice:`)) continue
    const type = await client.type(key)
    const ttl = await client.pttl(key)
    found[key.slice(prefix.length)] = {
      type,
      ttl: ttl < 0 ? ttl : Math.ceil(ttl / 3_000),
      value: await read(key, type),
    }
  }
  // The `timestamp` option only fixes BullMQ's clock; ours is fixed by `now`.
  return JSON.parse(
    JSON.stringify(found)
      .replaceAll(prefix, 'P')
      .replaceAll(`,\\"timestamp\\":${TIMESTAMP}`, '')
      .replaceAll(`\\"timestamp\\":${TIMESTAMP},`, ''),
  )
}

async function read(key: string, type: string): Promise<unknown> {
  const { client } = redis
  if (type === 'hash') return sortedHash(await client.hgetall(key))
  if (type === 'list') return client.lrange(key, 0, -1)
  if (type === 'zset') return client.zrange(key, '0', '-1', 'WITHSCORES')
  if (type === 'stream') return (await client.xrange(key, '-', '+')).map(([, fields]) => fields)
  if (type === 'set') return (await client.smembers(key)).sort()
  return client.get(key)
}

/** Options are compared as values: the order of their keys depends on Lua's hash seeds. */
function sortedHash(hash: Record<string, string>): unknown {
  const { opts, ...rest } = hash
  return { ...rest, ...(opts === undefined ? {} : { opts: sortKeys(JSON.parse(opts)) }) }
}

function sortKeys(value: unknown): unknown {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value
  const entries = Object.entries(value).filter(([key]) => key !== 'timestamp')
  return Object.fromEntries(
    entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, sortKeys(inner)]),
  )
}

async function compare(
  t: Test,
  steps: Step[],
  before: (prefix: string, client: Redis) => Promise<unknown> = async () => undefined,
): Promise<void> {
  const theirs = uniquePrefix()
  const ids = await withBullmq(theirs, steps, (client) => before(theirs, client))
  const expected = await snapshot(theirs)
  for (const atOnce of [false, true]) {
    const prefix = uniquePrefix()
    const ours = await withOurs(prefix, steps, atOnce, (client) => before(prefix, client))
    t.same(ours, ids, 'the same ids are returned')
    t.same(await snapshot(prefix), expected, atOnce ? 'the same in one command' : 'the same one by one')
  }
}

const single: Record<string, JobsOptions> = {
  'no option': {},
  delay: { delay: 5_000 },
  priority: { priority: 7 },
  'the lowest priority': { priority: 2_097_151 },
  lifo: { lifo: true },
  attempts: { attempts: 5 },
  'backoff as a number': { attempts: 3, backoff: 1_500 },
  'backoff fixed': { attempts: 3, backoff: { type: 'fixed', delay: 100 } },
  'backoff exponential with jitter': {
    attempts: 3,
    backoff: { type: 'exponential', delay: 100, jitter: 0.25 },
  },
  'removeOnComplete true': { removeOnComplete: true },
  'removeOnComplete false': { removeOnComplete: false },
  'removeOnComplete number': { removeOnComplete: 100 },
  'removeOnComplete object': { removeOnComplete: { age: 3600, count: 1000, limit: 10 } },
  'removeOnFail true': { removeOnFail: true },
  'removeOnFail number': { removeOnFail: 500 },
  'removeOnFail object': { removeOnFail: { age: 86_400 } },
  keepLogs: { keepLogs: 100 },
  stackTraceLimit: { stackTraceLimit: 10 },
  sizeLimit: { sizeLimit: 65_536 },
  'deduplication simple': { deduplication: { id: 'd' } },
  'deduplication throttle': { deduplication: { id: 'd', ttl: 60_000 } },
  'delay 0': { delay: 0 },
  'priority 0': { priority: 0 },
}

for (const [name, opts] of Object.entries(single)) {
  t.test(`a job with ${name} is stored as BullMQ stores it`, (t) =>
    compare(t, [{ opts: { jobId: 'a', ...opts } }]),
  )
}

const values: Record<string, unknown> = {
  'an object': { to: 'ann@example.com', nested: { list: [1, 2.5, null, true] } },
  'an array': [1, 'two', { three: 3 }],
  null: null,
  'a number': 0.1,
  'a text': 'héllo — 日本語 🎉 "quoted" \\ back\nslash',
  'a boolean': false,
  'a long text': 'x'.repeat(70_000),
}
for (const [name, data] of Object.entries(values)) {
  t.test(`data that is ${name} is stored as BullMQ stores it`, (t) =>
    compare(t, [{ data, opts: { jobId: 'a' } }]),
  )
}

t.test('a name in any script is stored as BullMQ stores it', (t) =>
  compare(t, [{ name: 'wîllkommen 🎉', opts: { jobId: 'a' } }]),
)

// Options that interact: which script runs (delay, priority), which end of the list, and which jobs exist already.
const interacting = [
  [{}, { delay: 3_000 }],
  [{}, { priority: 3 }],
  [{}, { lifo: true }],
  [{}, { deduplication: { id: 'd' } }, { deduplication: { id: 'd', ttl: 9_000 } }],
  [{}, { attempts: 3, backoff: { type: 'exponential', delay: 10 } }],
] satisfies JobsOptions[][]

function combinations(lists: JobsOptions[][]): JobsOptions[] {
  return lists.reduce<JobsOptions[]>(
    (all, list) => all.flatMap((a) => list.map((b) => ({ ...a, ...b }))),
    [{}],
  )
}

t.test(
  'every combination of the interacting options, three jobs of each, is stored as BullMQ stores it',
  async (t) => {
    for (const opts of combinations(interacting)) {
      const steps = ['a', 'b', 'c'].map((jobId) => ({ opts: { ...opts, jobId }, data: { jobId } }))
      await t.test(JSON.stringify(opts), (t) => compare(t, steps))
    }
  },
)

t.test('a mixed run keeps its order, scores and counters', (t) =>
  compare(
    t,
    combinations(interacting.slice(0, 3)).map((opts, index) => ({
      opts: { ...opts, jobId: `job-${index}` },
      data: index,
    })),
  ),
)

t.test('a repeated key leaves the first job unchanged', (t) =>
  compare(t, [
    { opts: { jobId: 'a' }, data: 1 },
    { opts: { jobId: 'a' }, data: 2 },
    { opts: { jobId: 'a', delay: 1_000 }, data: 3 },
    { opts: { jobId: 'a', priority: 2 }, data: 4 },
  ]),
)

const second: Record<string, JobsOptions> = {
  simple: { deduplication: { id: 'd' } },
  ttl: { deduplication: { id: 'd', ttl: 30_000 } },
  extend: { deduplication: { id: 'd', ttl: 30_000, extend: true } },
  replace: { deduplication: { id: 'd', replace: true }, delay: 2_000 },
  'replace with ttl': { deduplication: { id: 'd', ttl: 30_000, replace: true }, delay: 2_000 },
  'replace and extend': {
    deduplication: { id: 'd', ttl: 30_000, extend: true, replace: true },
    delay: 2_000,
  },
  reschedule: { deduplication: { id: 'd', reschedule: true }, delay: 9_000 },
  keepLastIfActive: { deduplication: { id: 'd', keepLastIfActive: true } },
}
for (const [name, opts] of Object.entries(second)) {
  for (const first of [
    { deduplication: { id: 'd', ttl: 60_000 } },
    { deduplication: { id: 'd' }, delay: 4_000 },
  ]) {
    t.test(`deduplication ${name} after ${JSON.stringify(first)} does what BullMQ does`, (t) =>
      compare(t, [
        { opts: { ...first, jobId: 'a' }, data: 1 },
        { opts: { ...opts, jobId: 'b' }, data: 2 },
        { opts: { ...opts, jobId: 'c' }, data: 3 },
      ]),
    )
  }
}

t.test('keepLastIfActive while one is active keeps the last, as BullMQ does', (t) =>
  compare(
    t,
    [
      { opts: { jobId: 'a', deduplication: { id: 'd', keepLastIfActive: true } }, data: 2 },
      { opts: { jobId: 'b', deduplication: { id: 'd', keepLastIfActive: true } }, data: 3 },
    ],
    async (prefix, client) => {
      await client.set(`${prefix}:q:de:d`, 'running')
      await client.rpush(`${prefix}:q:active`, 'running')
      await client.hset(`${prefix}:q:running`, { name: 'n', timestamp: TIMESTAMP, data: '1', opts: '{}' })
    },
  ),
)

t.test('jobs of a paused queue are stored as BullMQ stores them', (t) =>
  compare(
    t,
    [{ opts: { jobId: 'a' } }, { opts: { jobId: 'b', priority: 1 } }, { opts: { jobId: 'c', delay: 5 } }],
    (prefix, client) => client.hset(`${prefix}:q:meta`, { paused: 1, 'opts.maxLenEvents': 50 }),
  ),
)

t.test('jobs of a queue at its global concurrency are stored as BullMQ stores them', (t) =>
  compare(t, [{ opts: { jobId: 'a' } }, { opts: { jobId: 'b', priority: 1 } }], async (prefix, client) => {
    await client.hset(`${prefix}:q:meta`, { concurrency: 1 })
    await client.rpush(`${prefix}:q:active`, 'x')
  }),
)

t.test('a batch runs the commands that are the same for all jobs once', async (t) => {
  const steps = Array.from({ length: 100 }, (_, i) => ({ opts: { jobId: `job-${i}` } }))
  const before = await callsByCommand(redis.client)
  await withOurs(uniquePrefix(), steps, true, async () => {})
  const after = await callsByCommand(redis.client)
  const calls = (command: string) => (after[command] ?? 0) - (before[command] ?? 0)
  t.equal(calls('hmset'), 100)
  t.equal(calls('xadd'), 200)
  t.match(
    { incrby: calls('incrby'), hmget: calls('hmget'), zadd: calls('zadd'), incr: calls('incr') },
    // One ZADD is of the marker, the other of the list of queues.
    { incrby: 1, hmget: 1, zadd: 2, incr: 0 },
  )
})

t.test('a job with a generated key is stored as one that BullMQ numbers, under a UUID', async (t) => {
  const prefix = uniquePrefix()
  const [key] = (await withOurs(prefix, [{ opts: { attempts: 3 } }], false, async () => {})) as [string]
  t.match(key, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, 'a UUIDv7')
  const theirs = uniquePrefix()
  const [number] = (await withBullmq(theirs, [{ opts: { attempts: 3 } }], async () => {})) as [string]
  const expected = JSON.stringify(await snapshot(theirs)).replaceAll(`:q:${number}"`, `:q:${key}"`)
  t.same(
    await snapshot(prefix),
    JSON.parse(
      expected
        .replaceAll(`"jobId","${number}"`, `"jobId","${key}"`)
        .replaceAll(`["${number}"]`, `["${key}"]`),
    ),
  )
})
