/** Every sentence of advice has inputs that produce it, and the nearest inputs that do not. */
import t from 'tap'
import { type JobState, jobStates } from '../../src/bullmq/job-states.ts'
import type { Advice } from '../../src/feature.ts'
import { type HealthInputs, recommend, statusOf } from '../../src/health/recommendations.ts'
import { adviseOnCache } from '../../src/jobs/status/feature.ts'
import { parseServerInfo, type ServerInfo } from '../../src/redis/connection/server-info.ts'
import { adviseOnSubscriptions } from '../../src/webhooks/feature.ts'

/** Inputs of health, and of the features that advise. */
interface AllInputs extends HealthInputs {
  cacheEnabled: boolean
  subscriptions: { queue: string; reason: string }[]
}

const healthyServer: ServerInfo = parseServerInfo(
  [
    ...['redis_version:7.2.4', 'role:master', 'maxclients:10000', 'connected_clients:5', 'maxmemory:0'],
    ...['used_memory:1000', 'maxmemory_policy:noeviction', 'aof_enabled:1'],
  ].join('\r\n'),
  'always',
)

/** Inputs that produce no advice. */
const healthy: AllInputs = {
  server: healthyServer,
  redisError: undefined,
  scriptsProblem: undefined,
  budget: {
    ...{ providerLimit: 1024, reserved: 24, usable: 1000, replicas: 8, perProcess: 125 },
    ...{ wanted: 4, usefulMax: 120 },
  },
  pool: {
    ...{ created: 4, active: 0, idle: 4, errors: 0, reconnects: 0 },
    byRole: { commands: 2, admin: 1, events: 1 },
    ...{ lastError: null, lastLimitError: null },
  },
  semaphore: {
    ...{ permits: 100, inUse: 0, waiting: 0, maxWaiting: 200, refused: 0, peak: 7 },
    waitingByPriority: { settle: 0, enqueue: 0, read: 0, list: 0 },
  },
  events: { status: 'live', reason: null, lagMs: 100, beyondLimit: 0 },
  eventlessQueues: [],
  schedulers: [],
  queues: [['emails', counts({ completed: 5_000_000, active: 3 })]],
  uncounted: [],
  cacheEnabled: true,
  replicasWanted: 0,
  keysProblem: undefined,
  subscriptions: [],
}

function counts(some: Partial<Record<JobState, number>>): Record<JobState, number> {
  return {
    ...(Object.fromEntries(jobStates.map((state) => [state, 0])) as Record<JobState, number>),
    ...some,
  }
}

const server = (facts: Partial<ServerInfo>): Partial<AllInputs> => ({
  server: { ...healthyServer, ...facts },
})
const pool = (facts: Partial<AllInputs['pool']>): Partial<AllInputs> => ({
  pool: { ...healthy.pool, ...facts },
})
const queue = (some: Partial<Record<JobState, number>>): Partial<AllInputs> => ({
  queues: [['emails', counts(some)]],
})
const events = (facts: Partial<AllInputs['events']>): Partial<AllInputs> => ({
  events: { ...healthy.events, ...facts },
})
const adviceOn = (change: Partial<AllInputs>): Advice[] => {
  const { cacheEnabled, subscriptions, ...inputs } = { ...healthy, ...change }
  return [...recommend(inputs), ...adviseOnCache(cacheEnabled), ...adviseOnSubscriptions(subscriptions)]
}
const MiB = 1_048_576

const cases: {
  inputs: Partial<AllInputs>
  level?: Advice['level']
  sentence: RegExp
  without: Partial<AllInputs>
}[] = [
  {
    inputs: { server: undefined, redisError: 'ECONNREFUSED' },
    level: 'fail',
    sentence: /^Redis does not answer \(ECONNREFUSED\)\. Check REDIS_URL and the server\.$/,
    without: {},
  },
  {
    inputs: pool({ lastLimitError: 'ERR max requests limit exceeded' }),
    sentence: /^The provider refused commands with "ERR max requests limit exceeded"\. .*REPLICAS/,
    without: pool({ lastError: 'read ECONNRESET' }),
  },
  {
    inputs: server({ version: '6.0.16' }),
    sentence: /^Redis 6\.0\.16 is too old: version 6\.2 or later is required\.$/,
    without: server({ version: '6.2.0' }),
  },
  {
    inputs: server({ role: 'slave' }),
    level: 'fail',
    sentence: /^Redis is a slave: it accepts no jobs\. Point REDIS_URL at the master\.$/,
    without: server({ role: 'master', replicas: 2 }),
  },
  {
    inputs: server({ loading: true }),
    level: 'fail',
    sentence: /^Redis is loading its data\. Wait until it has finished\.$/,
    without: server({ loading: false, uptimeS: 0 }),
  },
  {
    inputs: server({ evictionPolicy: 'allkeys-lru' }),
    sentence: /^maxmemory-policy is allkeys-lru: .* Set it to noeviction\.$/,
    without: server({ evictionPolicy: 'noeviction' }),
  },
  {
    inputs: server({ usedMemoryBytes: 80 * MiB, maxMemoryBytes: 100 * MiB }),
    sentence: /^Redis uses 80 % of maxmemory\./,
    without: server({ usedMemoryBytes: 80 * MiB - 1, maxMemoryBytes: 100 * MiB }),
  },
  {
    inputs: {
      server: parseServerInfo('redis_version:7.2.4\r\nrole:master\r\nmaxmemory_policy:noeviction', 'always'),
    },
    sentence: /^A crash of Redis may lose every job since the last snapshot\. Set appendonly yes/,
    without: {},
  },
  {
    inputs: server({ maxClients: 1023 }),
    sentence: /^Redis allows 1023 connections, less than REDIS_PROVIDER_LIMIT \(1024\)/,
    without: server({ maxClients: 1024 }),
  },
  {
    inputs: server({ maxClients: 2000, connectedClients: 1801 }),
    sentence: /^1801 of Redis' 2000 connections are in use, 4 of them by this process\. Close connections/,
    without: server({ maxClients: 2000, connectedClients: 1800 }),
  },
  {
    inputs: server({ rejectedConnections: 1 }),
    sentence: /^Redis has refused 1 connections since its start\. Find the client that opens too many\.$/,
    without: server({ rejectedConnections: 0 }),
  },
  {
    inputs: pool({ created: 121 }),
    sentence: /^REDIS_POOL_SIZE is larger than can be used: 120 /,
    without: pool({ created: 120 }),
  },
  {
    inputs: { semaphore: { ...healthy.semaphore, refused: 4 } },
    sentence: /^4 operations were refused because 100 were in flight and 200 waited\./,
    without: { semaphore: { ...healthy.semaphore, inUse: 100, waiting: 200, peak: 100 } },
  },
  {
    inputs: events({ status: 'degraded', reason: 'The events connection is lost', lagMs: 5_000 }),
    sentence:
      /^Job events are not received \(The events connection is lost\): .* The service recovers by itself\.$/,
    without: events({ status: 'idle' }),
  },
  {
    inputs: events({ lagMs: 101 }),
    sentence: /^Job events were received up to 101 ms late: .*EVENTS_MAX_QUEUES\.$/,
    without: events({ lagMs: 100 }),
  },
  {
    inputs: queue({ waiting: 600, prioritized: 400 }),
    sentence:
      /^1000 jobs wait in emails and none is active\. Check that a worker runs and that the queue is not paused\.$/,
    without: queue({ waiting: 600, prioritized: 399, delayed: 5_000 }),
  },
  {
    inputs: queue({ failed: 100 }),
    sentence: /^100 jobs of emails have failed\. Read one with GET \/jobs\/\{id\} to see its error\.$/,
    without: queue({ failed: 99 }),
  },
  {
    inputs: { replicasWanted: 2, ...server({ replicas: 1 }) },
    level: 'fail',
    sentence: /^DURABILITY_REPLICAS is 2 and Redis has 1: no job is acknowledged\. /,
    without: { replicasWanted: 2, ...server({ replicas: 2 }) },
  },
  {
    inputs: { keysProblem: 'API_KEYS_FILE (k.json) is gone; the keys of before are in force' },
    sentence: /^API_KEYS_FILE \(k\.json\) is gone; the keys of before are in force\. Fix the file\.$/,
    without: { keysProblem: undefined },
  },
  {
    inputs: { schedulers: [{ queue: 'emails', schedulerId: 's', kind: 'stuck' }] },
    sentence: /^The scheduler s of emails did not go on when it was last tried: .*settings\.repeatStrategy/,
    without: { schedulers: [] },
  },
  {
    inputs: { schedulers: [{ queue: 'emails', schedulerId: 's', kind: 'legacy' }] },
    sentence: /^The scheduler s of emails has ended: .*BullMQ 5.*upsertJobScheduler\.$/,
    without: { schedulers: [] },
  },
  {
    inputs: { schedulers: [{ queue: 'emails', schedulerId: 's'.repeat(5_000), kind: 'malformed' }] },
    sentence: /^The scheduler s{200} of emails has ended: its job was malformed\..*upsertJobScheduler\.$/,
    without: { schedulers: [] },
  },
  {
    inputs: { schedulers: [{ queue: 'two\nlines. ', schedulerId: 'a\nb', kind: 'malformed' }] },
    sentence: /^The scheduler a\\nb of "two\\nlines\. " has ended: its job was malformed\./,
    without: { schedulers: [] },
  },
  {
    inputs: { subscriptions: [{ queue: 'emails', reason: 'is paused: answered 410 in 3 ms' }] },
    sentence: /^The subscription of emails is paused: answered 410 in 3 ms\. See GET /,
    without: { subscriptions: [] },
  },
  {
    inputs: { scriptsProblem: 'Redis refuses to run scripts. Allow EVALSHA.' },
    level: 'fail',
    sentence: /^Redis refuses to run scripts\. Allow EVALSHA\.$/,
    without: {},
  },
  {
    inputs: { cacheEnabled: false },
    sentence: /^The cache is off \(all CACHE_TTL_\* are 0\)/,
    without: { cacheEnabled: true, queues: [] },
  },
]

t.test('advice that names a queue carries its name, so that it can be hidden from other keys', async (t) => {
  const advice = [...adviceOn(queue({ failed: 100, waiting: 1_000 })), ...adviceOn({ uncounted: ['emails'] })]
  t.same(
    advice.map((one) => one.queue),
    ['emails', 'emails', 'emails'],
  )
  t.ok(adviceOn({ cacheEnabled: false }).every((one) => one.queue === undefined))
})

t.test(
  'advice that quotes an error is marked, so that it can be hidden from a key for some queues',
  async (t) => {
    const quoting: Partial<AllInputs>[] = [
      { server: undefined, redisError: 'connect ECONNREFUSED 10.0.0.7:6379' },
      pool({ lastLimitError: 'ERR max requests limit exceeded by tenant-7' }),
      events({ status: 'degraded', reason: 'NOPERM bull:theirs:events' }),
      { keysProblem: 'API_KEYS_FILE (/etc/keys.json) contains the id theirs twice' },
    ]
    for (const inputs of quoting) t.match(adviceOn(inputs), [{ quotesText: true }])
  },
)

t.test('a healthy service gets no advice', async (t) => {
  t.same(adviceOn({}), [])
  t.equal(statusOf([]), 'pass')
})

for (const { inputs, level = 'warn', sentence, without } of cases) {
  t.test(`${level} ${sentence.source.slice(1, 60)}`, async (t) => {
    const advice = adviceOn(inputs)
    t.equal(advice.length, 1, 'exactly one sentence')
    t.match(advice, [{ level, sentence }])
    t.same(adviceOn(without), [])
  })
}

t.test('the worst level decides the status', async (t) => {
  const warning: Advice = { level: 'warn', sentence: 'a' }
  const failure: Advice = { level: 'fail', sentence: 'b' }
  t.equal(statusOf([warning]), 'warn')
  t.equal(statusOf([warning, failure, warning]), 'fail')
})

t.test('each persistence mode but the safest produces a warning of its own', async (t) => {
  const said = ['everysec', 'no', undefined].map((appendfsync) => {
    const { durability } = parseServerInfo('aof_enabled:1', appendfsync)
    return adviceOn(server({ durability })).map(({ sentence }) => sentence)
  })
  for (const sentences of said) t.equal(sentences.length, 1)
  t.equal(new Set(said.flat()).size, 3)
})

t.test('a limit that the server does not report produces no advice', async (t) => {
  t.same(adviceOn(server({ maxClients: null, connectedClients: 50_000 })), [], 'no limit on connections')
  t.same(adviceOn(server({ maxMemoryBytes: 0, usedMemoryBytes: 1_000 * MiB })), [], 'no limit on memory')
})

t.test('waiting jobs produce no advice while a job is active', async (t) => {
  t.same(adviceOn(queue({ waiting: 100_000, active: 1 })), [])
})

t.test('every problem is reported, queue by queue', async (t) => {
  const advice = adviceOn({
    ...{ server: undefined, redisError: 'gone', cacheEnabled: false },
    queues: [
      ['a', counts({ failed: 100, waiting: 1_000 })],
      ['b', counts({ failed: 500 })],
    ],
  })
  t.same(
    advice.map(({ sentence }) => sentence.split(' ').slice(0, 4).join(' ')),
    ['Redis does not answer', '1000 jobs wait in', '100 jobs of a', '500 jobs of b', 'The cache is off'],
  )
})
