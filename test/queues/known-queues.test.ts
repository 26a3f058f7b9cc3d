/** The list of queues stays bounded, forgets only what is empty and unused, and costs /health the same at any length. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { createKnownQueues } from '../../src/queues/known-queues.ts'
import type { RedisGateway } from '../../src/redis/gateway/redis-gateway.ts'
import { createKeyspace } from '../../src/redis/keyspace.ts'
import { countQueues } from '../../src/redis/scripts/queues/count-queues.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

const DAY_MS = 86_400_000
const LONG_AGO = 1_000

async function setUp(t: Test, { maxKnown = 100_000, idleMs = DAY_MS } = {}) {
  const keyspace = createKeyspace(uniquePrefix())
  const labels: string[] = []
  let isDown = false
  const gateway = {
    async onAdmin(operation: { label: string }, send: (redis: typeof client) => unknown) {
      labels.push(operation.label)
      if (isDown) throw new Error('down')
      return send(client)
    },
  } as unknown as RedisGateway
  const open = () => {
    const known = createKnownQueues({ keyspace, gateway, maxKnown, idleMs })
    t.teardown(known.close)
    return known
  }
  const key = keyspace.knownQueues
  return {
    keyspace,
    labels,
    open,
    key,
    names: async () => (await client.zrange(key, '0', '-1')).sort(),
    /** Writes names whose last use was long ago. */
    old: (...names: string[]) => client.call('ZADD', key, ...names.flatMap((name) => [LONG_AGO, name])),
    down: (value: boolean) => {
      isDown = value
    },
  }
}

t.test(
  'a name is forgotten when its queue is empty and unused, and kept while it holds anything',
  async (t) => {
    const { keyspace, open, names, old, key } = await setUp(t)
    const base = (queue: string) => keyspace.queueBase(queue)
    const holding: [queue: string, write: () => Promise<unknown>][] = [
      ...['wait', 'paused', 'active'].map((list): [string, () => Promise<unknown>] => [
        `with-${list}`,
        () => client.lpush(`${base(`with-${list}`)}${list}`, '1'),
      ]),
      ...['delayed', 'prioritized', 'waiting-children', 'completed', 'failed', 'repeat'].map(
        (set): [string, () => Promise<unknown>] => [
          `with-${set}`,
          () => client.zadd(`${base(`with-${set}`)}${set}`, 1, '1'),
        ],
      ),
      ['subscribed', () => client.hset(keyspace.subscription('subscribed'), 'url', 'x')],
    ]
    for (const [, write] of holding) await write()
    // What BullMQ leaves of every queue that was ever used.
    await client.hset(`${base('empty')}meta`, 'version', 'x')
    await client.xadd(`${base('empty')}events`, '*', 'event', 'drained')
    await old('empty', '__proto__', ...holding.map(([queue]) => queue))
    const known = open()
    known.remember('in-use')
    const kept = ['in-use', ...holding.map(([queue]) => queue)].sort()
    await eventually(async () => (await names()).length === kept.length)
    t.same(await names(), kept)
    t.equal(await client.zcount(key, LONG_AGO, LONG_AGO), 0, 'what is kept is not checked again for a day')
    t.match(known.stats(), { known: kept.length, forgotten: 2, displaced: 0 })
  },
)

t.test('a name that one process has forgotten comes back when another one uses the queue', async (t) => {
  const idleMs = 400
  const { open, names } = await setUp(t, { idleMs })
  const [one, other] = [open(), open()]
  one.remember('shared')
  other.remember('shared')
  await eventually(async () => (await names()).includes('shared'))
  await eventually(async () => {
    one.remember('trigger')
    await new Promise((resolve) => setTimeout(resolve, 50))
    return !(await names()).includes('shared')
  })
  other.remember('shared')
  await eventually(async () => (await names()).includes('shared'))
})

t.test('a queue in use is written again before its name is due, and otherwise not', async (t) => {
  const { open, key, labels } = await setUp(t, { idleMs: 4_000 })
  const known = open()
  known.remember('busy')
  await eventually(async () => (await client.zcard(key)) === 1)
  const first = Number(await client.zscore(key, 'busy'))
  const endAt = performance.now() + 2_500
  while (performance.now() < endAt) {
    known.remember('busy')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  t.ok(Number(await client.zscore(key, 'busy')) >= first + 1_000)
  t.ok(labels.length <= 4, `${labels.length} commands for 250 uses`)
})

t.test('a name that could not be written is written with the next use', async (t) => {
  const { open, names, down } = await setUp(t)
  const known = open()
  down(true)
  known.remember('a')
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.same(await names(), [])
  down(false)
  known.remember('a')
  await eventually(async () => (await names()).length === 1)
})

t.test(
  'beyond KNOWN_QUEUES_MAX the names unused for the longest go, in steps, and jobs are never refused',
  async (t) => {
    const { open, names, old, key } = await setUp(t, { maxKnown: 100 })
    const many = Array.from({ length: 5_000 }, (_, i) => `old-${i}`)
    await old(...many)
    const known = open()
    for (let i = 0; i < 200; i++) known.remember(`new-${i}`)
    await eventually(async () => (await client.zcard(key)) === 100)
    t.ok((await names()).every((name) => name.startsWith('new-')))
    t.match(known.stats(), { known: 100, forgotten: Number })
    t.equal(known.stats().forgotten + known.stats().displaced, 5_100)
  },
)

t.test('queues are counted as BullMQ counts them, and a damaged one hides no other', async (t) => {
  const prefix = uniquePrefix()
  const { queueBase } = createKeyspace(prefix)
  const names = ['a', '__proto__', 'damaged', 'empty']
  for (const name of ['a', '__proto__']) {
    const connection = client.duplicate()
    t.teardown(() => connection.disconnect())
    const queue = new Queue(name, { connection, prefix })
    await queue.addBulk([
      { name: 'n', data: 1 },
      { name: 'n', data: 1, opts: { delay: 60_000 } },
      { name: 'n', data: 1, opts: { priority: 3 } },
    ])
    await client.zadd(`${queueBase(name)}failed`, 1, 'f')
    const [counts] = await countQueues(client, [queueBase(name)])
    t.same(counts, await queue.getJobCounts(...(Object.keys(counts!) as 'failed'[])))
  }
  await client.set(`${queueBase('damaged')}completed`, 'text')
  const counted = await countQueues(client, names.map(queueBase))
  t.match(counted, [
    { waiting: 1, delayed: 1, prioritized: 1, failed: 1 },
    { waiting: 1 },
    undefined,
    { waiting: 0 },
  ])
})

async function withOldNames(t: Test, count: number, settings: Record<string, string> = {}) {
  const app = await startApp(redis, { HEALTH_TTL: '0', ...settings })
  t.teardown(() => app.http.close())
  const { knownQueues } = createKeyspace(app.prefix)
  for (let at = 0; at < count; at += 5_000) {
    const names = Array.from({ length: Math.min(5_000, count - at) }, (_, i) => [
      `${Date.now() - 1_000}`,
      `q-${at + i}`,
    ])
    await client.call('ZADD', knownQueues, ...names.flat())
  }
  return app
}

/** Env KNOWN_QUEUES=1000000 measures a million. */
const COUNT = Number(process.env['KNOWN_QUEUES'] ?? 50_000)

t.test(
  `with ${COUNT} names /health lists 50, says how many more, and holds neither Redis nor the loop`,
  async (t) => {
    const app = await withOldNames(t, COUNT, { KNOWN_QUEUES_MAX: '10000000' })
    const post = (queue: string) =>
      app.http.inject({ method: 'POST', url: '/jobs', payload: { queue, name: 'n' } })
    for (const queue of ['__proto__', 'constructor', 'toString', '7'])
      t.equal((await post(queue)).statusCode, 201)
    await eventually(async () => (await client.zcard(`${app.prefix}::sluice:known-queues`)) === COUNT + 4)
    for (let warmUp = 0; warmUp < 10; warmUp++) await app.http.inject('/health')
    await client.config('RESETSTAT')
    const before = process.cpuUsage()
    const answers = []
    for (let i = 0; i < 5; i++)
      for (const url of ['/health', '/health/redis']) answers.push(await app.http.inject(url))
    const { user, system } = process.cpuUsage(before)
    const msEach = (user + system) / 1_000 / answers.length
    t.ok(msEach < 25, `an answer takes ${msEach} ms of CPU time`)
    const commands = [
      ...(await client.info('commandstats')).matchAll(/cmdstat_(\S+):.*?usec_per_call=([\d.]+)/g),
    ]
    t.ok(commands.length > 3)
    for (const [, command, us] of commands) t.ok(Number(us) < 5_000, `${command} takes ${us} µs`)
    t.comment(
      `${msEach.toFixed(1)} ms of CPU time each; ${commands.map(([, name, us]) => `${name} ${us}`).join(', ')} µs`,
    )
    for (const answer of answers) {
      const body = answer.json()
      t.equal(Object.keys(body.queues).length, 50)
      for (const queue of ['__proto__', 'constructor', 'toString', '7'])
        t.match(Object.entries(body.queues).find(([name]) => name === queue)?.[1], { waiting: 1 }, queue)
      t.match(body, { queuesKnown: COUNT + 4, queuesOmitted: COUNT - 46 })
      t.ok(answer.body.length < 20_000, `${answer.body.length} bytes`)
    }
    const text = (await app.http.inject('/stats')).body
    t.match(JSON.parse(text), { knownQueues: { known: COUNT + 4, displaced: 0 } })
  },
)
