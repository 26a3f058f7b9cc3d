/** Pages of jobs of queues that BullMQ filled, while jobs come, go and move between one page and the next. */
import { type Job, type JobType, Queue, Worker } from 'bullmq'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { type JobState, jobStates } from '../../../src/bullmq/job-states.ts'
import { SluiceError } from '../../../src/errors.ts'
import { createJobLister, LISTED_STATES, type ListRequest } from '../../../src/jobs/status/job-lister.ts'
import { bodyOf, type JobResource } from '../../../src/jobs/status/job-resource.ts'
import { createPacedTurns, type PacedTurns } from '../../../src/paced-turns.ts'
import { createQueueRegistry } from '../../../src/queues/queue-registry.ts'
import { createSharedBackends } from '../../../src/queues/shared-backend.ts'
import { computeConnectionBudget } from '../../../src/redis/connection/connection-budget.ts'
import { createRedisConnections } from '../../../src/redis/connection/connections.ts'
import { createByteBudget } from '../../../src/redis/gateway/byte-budget.ts'
import { createRedisGateway } from '../../../src/redis/gateway/redis-gateway.ts'
import { createSemaphore } from '../../../src/redis/gateway/semaphore.ts'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import { eventually, startApp, testConfig } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

type Query = Omit<ListRequest, 'queue'>

async function setUp(t: Test, prefix = uniquePrefix(), maxBytes = 8_388_608) {
  const config = testConfig({ QUEUE_PREFIX: prefix })
  const connections = createRedisConnections(
    config,
    redis,
    computeConnectionBudget(config, 1),
    pino({ level: 'silent' }),
  )
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
  const queue = new Queue('q', { connection: redis.client, prefix, skipMetasUpdate: true })
  t.teardown(async () => {
    await registry.close()
    await connections.close()
    gateway.close()
  })
  const byteBudget = createByteBudget(maxBytes, 100)
  const listerWith = (turns: Pick<PacedTurns, 'perBytes'>) =>
    createJobLister({ registry, gateway, byteBudget, turns, maxBytes })
  const lister = listerWith(createPacedTurns())
  const base = `${prefix}:q:`
  const page = (query: Query) => lister.page({ queue: 'q', ...query })

  /** Reads all pages; `between` runs before each but the first. Throws if the listing does not end. */
  async function walk(query: Query, between: (seen: JobResource[]) => Promise<unknown> = async () => {}) {
    const seen: JobResource[] = []
    for (let turn = 0, cursor: string | undefined; turn < 1_000; turn++) {
      if (turn > 0) await between(seen)
      const found = await page({ ...query, ...(cursor === undefined ? {} : { cursor }) })
      seen.push(...found.jobs)
      if (found.cursor === null) return seen
      cursor = found.cursor
    }
    throw new Error('the listing does not end')
  }

  const add = (count: number, name: string, opts: object = {}) =>
    queue.addBulk(
      Array.from({ length: count }, (_, i) => ({ name, data: {}, opts: { jobId: `${name}-${i}`, ...opts } })),
    )
  /** Stores jobs that are in no collection yet. */
  const hash = (...keys: string[]) =>
    Promise.all(keys.map((key) => redis.client.hset(base + key, { timestamp: 1_790_000_000_000, name: 'n' })))
  /** Takes the next job as a worker does, and leaves it active. */
  const takers: Worker[] = []
  const take = async () => {
    takers[0] ??= openWorker(t, prefix)
    return (await takers[0].getNextJob('token', { block: false })) as Job
  }
  return { listerWith, page, walk, add, hash, take, queue, base, prefix, gateway, client: redis.client }
}

function openWorker(t: Test, prefix: string): Worker {
  const client = redis.client.duplicate({ maxRetriesPerRequest: null })
  const worker = new Worker('q', null, { connection: client, prefix })
  t.teardown(async () => {
    await worker.close()
    client.disconnect()
  })
  return worker
}

const keysOf = (jobs: JobResource[]) => jobs.map(({ id }) => id.slice(id.indexOf(':') + 1))
const named = (keys: string[], name: string) => keys.filter((key) => key.startsWith(`${name}-`))
const idsOf = (jobs: Job[]) => jobs.map(({ id }) => id!)

/** Stores jobs of every state, with all kinds of fields. */
async function fill({ queue, take, prefix }: Awaited<ReturnType<typeof setUp>>, each = 3) {
  for (let i = 0; i < each; i++) {
    await queue.add('fails', {}, { jobId: `f-${i}`, attempts: 1 })
    await (await take()).moveToFailed(new Error(`no ${i}`), 'token', false)
    await queue.add('completes', { i }, { jobId: `c-${i}`, deduplication: { id: `d-${i}`, ttl: 60_000 } })
    const done = await take()
    await done.updateProgress({ percent: i })
    await done.moveToCompleted({ answer: i }, 'token', false)
  }
  for (let i = 0; i < each; i++) {
    await queue.add('runs', {}, { jobId: `a-${i}`, attempts: 3 })
    await take()
  }
  for (let i = 0; i < each; i++) {
    await queue.add('waits', { ä: '🎉' }, { jobId: `w-${i}` })
    await queue.add('later', {}, { jobId: `d-${i}`, delay: 60_000 * (i + 1) })
    await queue.add('first', {}, { jobId: `p-${i}`, priority: i + 1 })
    const parent = { id: `wc-${i}`, queue: `${prefix}:q` }
    await redis.client.hset(`${prefix}:q:wc-${i}`, { timestamp: 1_790_000_000_000 + i, name: 'parent' })
    await redis.client.zadd(`${prefix}:q:waiting-children`, 1_790_000_000_000 + i, `wc-${i}`)
    await queue.add('child', {}, { jobId: `k-${i}`, parent })
  }
}

const bullmqName = (state: JobState) => (state === 'waiting' ? 'wait' : state) as JobType

t.test('a state lists the jobs that BullMQ lists, in the same order, for every page size', async (t) => {
  const env = await setUp(t)
  await fill(env)
  for (const state of jobStates) {
    const theirs = idsOf(await env.queue.getJobs([bullmqName(state)], 0, -1, false))
    t.ok(theirs.length >= 3, `some jobs are ${state}`)
    for (const limit of [1, 2, 3, 200]) {
      const ours = await env.walk({ state, limit })
      t.strictSame(keysOf(ours), theirs, `${state} by ${limit}`)
      t.ok(ours.every((job) => job.state === state))
    }
  }
})

t.test('without a state every job is listed, state by state, and a page may span states', async (t) => {
  const env = await setUp(t)
  await fill(env)
  const expected = []
  for (const state of LISTED_STATES) expected.push(...(await env.walk({ state, limit: 200 })))
  t.strictSame([...LISTED_STATES].sort(), [...jobStates].sort())
  for (const limit of [1, 2, 5, 200]) t.strictSame(await env.walk({ limit }), expected, `by ${limit}`)
})

t.test('a listed job equals what GET /jobs/:id returns', async (t) => {
  const app = await startApp(redis, { CACHE_TTL_SHORT: '0' })
  t.teardown(() => app.http.close())
  const env = await setUp(t, app.prefix)
  await fill(env)
  const listed = await env.walk({ limit: 4 })
  t.equal(new Set(listed.map(({ state }) => state)).size, jobStates.length)
  for (const job of listed) {
    t.equal(bodyOf(job), (await app.http.inject(`/jobs/${job.id}`)).body, `${job.id} is ${job.state}`)
  }
})

t.test('a page is one command, even across states, and reads no more hashes than jobs', async (t) => {
  const env = await setUp(t)
  await fill(env, 4)
  const calls = async (command: string) =>
    Number(
      new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await redis.client.info('commandstats'))?.[1] ?? 0,
    )
  await env.page({ limit: 7 })
  const [evals, hashes] = [await calls('evalsha'), await calls('hmget')]
  await env.page({ limit: 7 })
  t.equal((await calls('evalsha')) - evals, 1)
  t.equal((await calls('hmget')) - hashes, 7)
  t.equal(env.gateway.commandsSent()['listJobs'], 2)
})

t.test('the last page has no cursor, and an empty queue has one empty page', async (t) => {
  const { page, add, prefix, client } = await setUp(t)
  t.strictSame(await page({ limit: 50 }), { jobs: [], cursor: null })
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.equal(await client.zcard(`${prefix}::sluice:known-queues`), 0, 'a queue without jobs is not remembered')
  await add(4, 'w')
  t.equal((await page({ state: 'waiting', limit: 4 })).cursor, null, 'exactly full')
  t.type((await page({ state: 'waiting', limit: 3 })).cursor, 'string')
  await eventually(async () => (await client.zcard(`${prefix}::sluice:known-queues`)) === 1)
})

t.test('1,400 jobs are listed once each while others are added and removed before every page', async (t) => {
  const env = await setUp(t)
  const { queue, client, base } = env
  await env.add(500, 'w')
  await env.add(300, 'd', { delay: 60_000 })
  await env.add(300, 'p', { priority: 5 })
  const finished = Array.from({ length: 300 }, (_, i) => `c-${i}`)
  await env.hash(...finished)
  for (const [i, key] of finished.entries()) await client.zadd(`${base}completed`, 1_000 + (i >> 3), key)
  // Jobs that exist from the start and are removed at some time, in every collection.
  await env.add(60, 'gw')
  await env.add(60, 'gd', { delay: 59_000 })
  await env.add(60, 'gp', { priority: 4 })

  let turn = 0
  const seen = await env.walk({ limit: 40 }, async () => {
    turn++
    await env.add(7, `new${turn}`)
    await env.add(7, `newd${turn}`, { delay: 58_000 + turn * 100 })
    await env.add(7, `newp${turn}`, { priority: turn })
    await env.hash(`newc-${turn}`)
    await client.zadd(`${base}completed`, 1_000 + turn, `newc-${turn}`)
    for (const kind of ['gw', 'gd', 'gp']) {
      for (const i of [turn, 59 - turn]) await queue.remove(`${kind}-${i}`)
    }
  })
  const keys = keysOf(seen)
  t.equal(new Set(keys).size, keys.length, 'no job twice')
  for (const [name, count] of Object.entries({ w: 500, d: 300, p: 300, c: 300 })) {
    t.equal(named(keys, name).length, count, `every ${name}`)
  }
})

t.test('waiting jobs are listed once each while workers take jobs and others arrive', async (t) => {
  const { queue, walk, add, take } = await setUp(t)
  await add(600, 'w')
  const taken = new Set<string>()
  let turn = 0
  const seen = await walk({ state: 'waiting', limit: 25 }, async () => {
    await add(30, `new${turn++}`)
    for (let i = 0; i < 20; i++) taken.add((await take()).id!)
  })
  const keys = keysOf(seen)
  t.equal(new Set(keys).size, keys.length, 'no job twice')
  const stayed = idsOf(await queue.getJobs(['wait'], 0, -1, false)).filter((key) => key.startsWith('w-'))
  t.ok(stayed.length > 100 && taken.size > 100, `${stayed.length} stayed, ${taken.size} were taken`)
  t.strictSame(named(keys, 'w').slice(0, stayed.length), stayed, 'every job that stayed, in order')
})

t.test('each page of jobs can be removed before the next one is read', async (t) => {
  for (const [state, opts] of [
    ['waiting', {}],
    ['prioritized', { priority: 2 }],
  ] as const) {
    const { queue, walk, add } = await setUp(t)
    await add(300, 'w', opts)
    const seen = await walk({ state, limit: 20 }, async (seen) => {
      for (const key of keysOf(seen.slice(-20))) await queue.remove(key)
    })
    t.equal(new Set(keysOf(seen)).size, 300, state)
    t.equal(seen.length, 300)
  }
})

t.test('the next page starts at the right job, even if jobs at the page end are gone', async (t) => {
  const { page, hash, base, client } = await setUp(t)
  // The page ends after e; its neighbours are c and d before, f, g and h after.
  const keys = [...'abcdefghijkl']
  await hash(...keys, 'x', 'y')
  for (let gone = 0; gone < 63; gone++) {
    await client.del(`${base}wait`)
    await client.rpush(`${base}wait`, ...keys)
    const { cursor } = await page({ state: 'waiting', limit: 5 })
    const removed = [...'cdefgh'].filter((_, bit) => gone & (1 << bit))
    for (const key of removed) await client.lrem(`${base}wait`, 0, key)
    await client.lpush(`${base}wait`, 'x', 'y')
    const { jobs } = await page({ state: 'waiting', limit: 12, cursor: cursor! })
    t.strictSame(
      keysOf(jobs),
      [...'fghijkl'].filter((key) => !removed.includes(key)),
      `without ${removed}`,
    )
  }
})

t.test('a retried job at the head does not move the listing back to the head', async (t) => {
  const { page, hash, base, client } = await setUp(t)
  await hash(...'abcdefgh')
  await client.rpush(`${base}active`, ...'abcdefgh')
  const { cursor } = await page({ state: 'active', limit: 4 })
  await client.lrem(`${base}active`, 0, 'd')
  await client.lpush(`${base}active`, 'd')
  await client.lrem(`${base}active`, 0, 'e')
  await client.lpush(`${base}active`, 'e')
  t.strictSame(keysOf((await page({ state: 'active', limit: 9, cursor: cursor! })).jobs), [...'fgh'])
})

t.test('when workers took the end of a page and all jobs behind it, the listing ends', async (t) => {
  const { page, add, client, base } = await setUp(t)
  await add(60, 'w')
  const { jobs, cursor } = await page({ state: 'waiting', limit: 40 })
  t.equal(jobs.length, 40)
  for (let i = 0; i < 30; i++) await client.rpop(`${base}wait`)
  await add(30, 'new')
  t.strictSame(await page({ state: 'waiting', limit: 40, cursor: cursor! }), { jobs: [], cursor: null })
})

t.test(
  'when all neighbours of the end of a page are gone, no more jobs are skipped than are gone',
  async (t) => {
    const { page, add, client, base } = await setUp(t)
    await add(100, 'w')
    const before = await client.lrange(`${base}wait`, 0, -1)
    const { cursor } = await page({ state: 'waiting', limit: 10 })
    for (const key of before.slice(0, 13)) await client.lrem(`${base}wait`, 0, key)
    const keys = keysOf((await page({ state: 'waiting', limit: 200, cursor: cursor! })).jobs)
    t.ok(keys.length >= 87 - 13, `${keys.length} of 87 are left`)
    t.strictSame(keys, before.slice(-keys.length))
  },
)

t.test(
  'a list goes on at the right job though thousands came and went since the previous page',
  async (t) => {
    const { page, hash, base, client } = await setUp(t)
    const keys = Array.from({ length: 6_000 }, (_, i) => `w-${i}`)
    await hash('w-3000', 'w-3001')
    await client.rpush(`${base}wait`, ...keys)
    let cursor: string | null | undefined
    for (let jobs: JobResource[] = []; jobs.length === 0; ) {
      const found = await page({ state: 'waiting', limit: 1, ...(cursor ? { cursor } : {}) })
      jobs = found.jobs
      cursor = found.cursor
    }
    await client.ltrim(`${base}wait`, 0, 3_500)
    await client.lpush(`${base}wait`, ...Array.from({ length: 2_500 }, (_, i) => `new-${i}`))
    t.strictSame(keysOf((await page({ state: 'waiting', limit: 1, cursor: cursor! })).jobs), ['w-3001'])
  },
)

t.test(
  'jobs that finished in the same millisecond are listed once each, though the last listed one goes',
  async (t) => {
    const { walk, hash, base, client } = await setUp(t)
    // Characters that sort differently by bytes and by the rules of languages.
    const keys = Array.from({ length: 100 }, (_, i) => `${'aBéZ~_-9'[i % 8]}${i}`)
    await hash(...keys)
    for (const key of keys) await client.zadd(`${base}completed`, 1_790_000_000_123, key)
    await hash('newer', 'older')
    await client.zadd(`${base}completed`, 1_790_000_000_124, 'newer', 1_790_000_000_122, 'older')
    const order = await client.zrevrange(`${base}completed`, 0, -1)
    t.strictSame(keysOf(await walk({ state: 'completed', limit: 7 })), order)
    const seen = await walk({ state: 'completed', limit: 7 }, async (seen) => {
      const last = keysOf(seen).at(-1)!
      // It is removed or finishes again, in turns.
      if (seen.length % 2) await client.zrem(`${base}completed`, last)
      else await client.zadd(`${base}completed`, 1_790_000_000_999, last)
    })
    t.strictSame(keysOf(seen), order)
  },
)

t.test('a delayed job that is rescheduled between pages moves no other job', async (t) => {
  const { walk, add, queue } = await setUp(t)
  await add(50, 'd', { delay: 60_000 })
  let turn = 0
  const seen = await walk({ state: 'delayed', limit: 5 }, async (seen) => {
    const last = (await queue.getJob(keysOf(seen).at(-1)!))!
    if (turn++ % 2) await last.promote()
    else await last.changeDelay(90_000)
  })
  t.equal(seen.length, 50)
  t.equal(new Set(keysOf(seen)).size, 50)
})

t.test('ids without a job are skipped, and pages are full nevertheless', async (t) => {
  const { page, walk, add, base, client } = await setUp(t)
  await add(20, 'w')
  const real = keysOf(await walk({ state: 'waiting', limit: 50 }))
  for (const [i, key] of real.entries()) await client.linsert(`${base}wait`, 'AFTER', key, `gone-${i}`)
  // Other keys of the queue, of another type or without a timestamp.
  await client.set(`${base}text`, 'x')
  await client.hset(`${base}meta`, 'version', 'x')
  await client.lpush(`${base}wait`, 'text', 'meta')
  t.strictSame(keysOf((await page({ state: 'waiting', limit: 10 })).jobs), real.slice(0, 10))
  for (const limit of [1, 3, 200]) t.strictSame(keysOf(await walk({ state: 'waiting', limit })), real)
})

t.test('a page skips at most 500 ids without a job, and the listing completes', async (t) => {
  const { page, walk, hash, base, client } = await setUp(t)
  for (let i = 0; i < 3_500; i++) client.zadd(`${base}failed`, i + 1, `gone-${i}`)
  await hash('last')
  await client.zadd(`${base}failed`, 0, 'last')
  const first = await page({ state: 'failed', limit: 50 })
  t.strictSame(first.jobs, [])
  t.type(first.cursor, 'string')
  t.strictSame(keysOf(await walk({ state: 'failed', limit: 50 })), ['last'])
})

t.test('markers and the paused list of old BullMQ versions are read and not changed', async (t) => {
  const { page, walk, add, hash, base, client } = await setUp(t)
  await add(3, 'w')
  await client.rpush(`${base}wait`, '0:1790000000000')
  await hash('paused-1', 'paused-2', '0:5')
  await client.rpush(`${base}paused`, 'paused-1', 'paused-2', '0:5')
  const before = [await client.lrange(`${base}wait`, 0, -1), await client.lrange(`${base}paused`, 0, -1)]
  const expected = ['w-2', 'w-1', 'w-0', 'paused-1', 'paused-2']
  for (const limit of [1, 2, 50]) {
    const jobs = await walk({ state: 'waiting', limit })
    t.strictSame(keysOf(jobs), expected)
    t.ok(jobs.every(({ state }) => state === 'waiting'))
  }
  t.equal((await page({ state: 'waiting', limit: 50 })).cursor, null)
  t.strictSame(
    [await client.lrange(`${base}wait`, 0, -1), await client.lrange(`${base}paused`, 0, -1)],
    before,
  )
})

t.test('a key of the wrong type is reported as a damaged queue', async (t) => {
  const { page, base, client } = await setUp(t)
  await client.set(`${base}failed`, 'x')
  await t.rejects(page({ state: 'failed', limit: 50 }), { code: 'QUEUE_DAMAGED' })
  await t.rejects(page({ limit: 50 }), { code: 'QUEUE_DAMAGED' })
})

t.test('a cursor of another queue or state is refused with advice', async (t) => {
  const { page, add, walk } = await setUp(t)
  await add(5, 'w')
  await add(5, 'p', { priority: 1 })
  const waiting = (await page({ state: 'waiting', limit: 2 })).cursor!
  const every = (await page({ limit: 2 })).cursor!
  const wrong = {
    code: 'INVALID_REQUEST',
    details: { errors: [{ pointer: '?cursor', detail: /another query/ }] },
  }
  await t.rejects(page({ state: 'prioritized', limit: 2, cursor: waiting }), wrong)
  await t.rejects(page({ limit: 2, cursor: waiting }), wrong)
  await t.rejects(page({ state: 'waiting', limit: 2, cursor: every }), wrong)
  await t.rejects(page({ queue: 'other', state: 'waiting', limit: 2, cursor: waiting } as Query), wrong)
  t.equal((await walk({ limit: 3 })).length, 10)
})

t.test('a forged cursor is refused or harmless', async (t) => {
  const { page, add } = await setUp(t)
  await add(5, 'w')
  await add(5, 'd', { delay: 60_000 })
  const cursorOf = (value: unknown) =>
    Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
  const good = [1, 'q', 'waiting', 'wait', 1, 5, 1, 2, 'w-4', 'w-3', 'w-4', 'w-2', 'w-1', 'w-0']
  const withAt = (index: number, value: unknown) => good.map((old, at) => (at === index ? value : old))
  t.equal((await page({ state: 'waiting', limit: 9, cursor: cursorOf(good) })).jobs.length, 3)
  const set = [1, 'q', 'delayed', 'delayed', 'd-1']
  const refused: unknown[] = [
    ...['', 'x', '[', 'null', '{}', '[]', '1', '['.repeat(5_000), '["a"'],
    ...[withAt(0, 2), withAt(3, 'delayed'), withAt(3, null), withAt(3, 'constructor'), good.slice(0, 8)],
    ...[-1, 0.5, 5, 2 ** 41, '1', null, {}].map((offset) => withAt(4, offset)),
    ...[0, 1, 2 ** 41, null].map((length) => withAt(5, length)),
    ...[-1, 2, 1.5].map((span) => withAt(6, span)),
    ...[0, 4, '2', 2 ** 31].map((count) => withAt(7, count)),
    ...[withAt(8, 1), withAt(9, null), withAt(13, ['w-0']), [...good, 'w-9'], good.slice(0, 10)],
    ...[1, '', 'nan', '(1', '1 ', '0x10', '1'.repeat(40), null].map((score) => [...set, score]),
    ...[set, [...set, '1', '2'], [1, 'q', 'delayed', 'delayed', 7, '1']],
    'x'.repeat(10_000),
  ]
  for (const value of refused) {
    const state = Array.isArray(value) && value[2] === 'delayed' ? 'delayed' : 'waiting'
    const outcome = await page({ state, limit: 9, cursor: cursorOf(value) }).catch((error) => error)
    t.ok(outcome instanceof SluiceError, `refused: ${JSON.stringify(value).slice(0, 100)}`)
    t.match(outcome, {
      code: 'INVALID_REQUEST',
      details: { errors: [{ pointer: '?cursor', detail: /start over.$/ }] },
    })
  }
  const harmless = [
    [...set, '-inf'],
    [...set, 'inf'],
    [...set, '1e300'],
    [1, 'q', 'delayed', 'delayed', '\ud800\u0000', '1'],
    [1, 'q', 'waiting', 'wait', 2 ** 39, 2 ** 40, 2 ** 39, 1, '\ud800', '', ''],
    [1, 'q', 'waiting', 'wait', 0, 1, 0, 1, '', ''],
    [1, 'q', 'waiting', 'paused', 0, 1, 0, 1, 'w-0', 'w-0'],
  ]
  for (const value of harmless) {
    const { jobs } = await page({ state: value[2] as JobState, limit: 9, cursor: cursorOf(value) })
    t.ok(jobs.length <= 5, JSON.stringify(value))
  }
})

t.test('a page is rendered job by job, and waits for a turn after each', async (t) => {
  const { add, listerWith } = await setUp(t)
  await add(3, 'a')
  const granted: (() => void)[] = []
  let isRendered = false
  const perBytes = () => () => new Promise<void>((resolve) => granted.push(resolve))
  const rendered = listerWith({ perBytes }).pageText({ queue: 'q', limit: 10 })
  void rendered.then(() => {
    isRendered = true
  })
  for (let turn = 0; turn < 3; turn++) {
    await eventually(() => granted.length === turn + 1)
    t.notOk(isRendered)
    granted[turn]!()
  }
  t.equal((JSON.parse(`${await rendered}`) as { jobs: object[] }).jobs.length, 3)
})
