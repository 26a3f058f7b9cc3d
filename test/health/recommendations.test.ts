/** Every sentence has a situation that brings it, and that situation's nearest neighbour, which does not. */
import t from 'tap'
import { type JobState, jobStates } from '../../src/bullmq/job-states.ts'
import { type Advice, type HealthInputs, recommend } from '../../src/health/recommendations.ts'
import { parseServerInfo, type ServerInfo } from '../../src/redis/connection/server-info.ts'

const healthyServer: ServerInfo = parseServerInfo(
  [
    ...['redis_version:7.2.4', 'role:master', 'maxclients:10000', 'connected_clients:5', 'maxmemory:0'],
    ...['used_memory:1000', 'maxmemory_policy:noeviction', 'aof_enabled:1'],
  ].join('\r\n'),
  'always',
)

/** A service that has nothing to complain about. */
const healthy: HealthInputs = {
  server: healthyServer,
  redisError: undefined,
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
  events: { status: 'live', reason: null, lagMs: 100 },
  queues: { emails: counts({ completed: 5_000_000, active: 3 }) },
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

const server = (facts: Partial<ServerInfo>): Partial<HealthInputs> => ({
  server: { ...healthyServer, ...facts },
})
const pool = (facts: Partial<HealthInputs['pool']>): Partial<HealthInputs> => ({
  pool: { ...healthy.pool, ...facts },
})
const queue = (some: Partial<Record<JobState, number>>): Partial<HealthInputs> => ({
  queues: { emails: counts(some) },
})
const events = (facts: Partial<HealthInputs['events']>): Partial<HealthInputs> => ({
  events: { ...healthy.events, ...facts },
})
const adviceOn = (change: Partial<HealthInputs>): Advice[] => recommend({ ...healthy, ...change })
const MiB = 1_048_576

const cases: {
  brings: Partial<HealthInputs>
  level?: Advice['level']
  sentence: RegExp
  not: Partial<HealthInputs>
}[] = [
  {
    brings: { server: undefined, redisError: 'ECONNREFUSED' },
    level: 'fail',
    sentence: /^Redis does not answer \(ECONNREFUSED\)\. Check REDIS_URL and the server\.$/,
    not: {},
  },
  {
    brings: pool({ lastLimitError: 'ERR max requests limit exceeded' }),
    sentence: /^The provider refused commands with "ERR max requests limit exceeded"\. .*REPLICAS/,
    not: pool({ lastError: 'read ECONNRESET' }),
  },
  {
    brings: server({ version: '6.0.16' }),
    sentence: /^Redis 6\.0\.16 is too old: 6\.2 or later is needed\.$/,
    not: server({ version: '6.2.0' }),
  },
  {
    brings: server({ role: 'slave' }),
    level: 'fail',
    sentence: /^Redis is a slave: it takes no jobs\. Point REDIS_URL at the master\.$/,
    not: server({ role: 'master', replicas: 2 }),
  },
  {
    brings: server({ loading: true }),
    level: 'fail',
    sentence: /^Redis is loading its data\. This passes\.$/,
    not: server({ loading: false, uptimeS: 0 }),
  },
  {
    brings: server({ evictionPolicy: 'allkeys-lru' }),
    sentence: /^maxmemory-policy is allkeys-lru: .* Set it to noeviction\.$/,
    not: server({ evictionPolicy: 'noeviction' }),
  },
  {
    brings: server({ usedMemoryBytes: 80 * MiB, maxMemoryBytes: 100 * MiB }),
    sentence: /^Redis uses 80 % of maxmemory\./,
    not: server({ usedMemoryBytes: 80 * MiB - 1, maxMemoryBytes: 100 * MiB }),
  },
  {
    brings: {
      server: parseServerInfo('redis_version:7.2.4\r\nrole:master\r\nmaxmemory_policy:noeviction', 'always'),
    },
    sentence: /^A crash of Redis may lose every job since the last snapshot\. Set appendonly yes/,
    not: {},
  },
  {
    brings: server({ maxClients: 1023 }),
    sentence: /^Redis allows 1023 connections, less than REDIS_PROVIDER_LIMIT \(1024\)/,
    not: server({ maxClients: 1024 }),
  },
  {
    brings: server({ maxClients: 2000, connectedClients: 1801 }),
    sentence: /^1801 of Redis' 2000 connections are taken, 4 of them by this process\.$/,
    not: server({ maxClients: 2000, connectedClients: 1800 }),
  },
  {
    brings: server({ rejectedConnections: 1 }),
    sentence: /^Redis has refused 1 connections since its start: something opens too many\.$/,
    not: server({ rejectedConnections: 0 }),
  },
  {
    brings: pool({ created: 121 }),
    sentence: /^REDIS_POOL_SIZE is larger than could ever be used: 120 /,
    not: pool({ created: 120 }),
  },
  {
    brings: { semaphore: { ...healthy.semaphore, refused: 4 } },
    sentence: /^4 operations were refused because 100 were in flight and 200 waited\./,
    not: { semaphore: { ...healthy.semaphore, inUse: 100, waiting: 200, peak: 100 } },
  },
  {
    brings: events({ status: 'degraded', reason: 'The events connection is lost', lagMs: 5_000 }),
    sentence: /^Job events are not heard \(The events connection is lost\): .* It recovers by itself\.$/,
    not: events({ status: 'idle' }),
  },
  {
    brings: events({ lagMs: 101 }),
    sentence: /^Job events were heard up to 101 ms late: .*EVENTS_MAX_QUEUES\.$/,
    not: events({ lagMs: 100 }),
  },
  {
    brings: queue({ waiting: 600, prioritized: 400 }),
    sentence: /^1000 jobs wait in emails and none is active: is a worker running, is the queue paused\?$/,
    not: queue({ waiting: 600, prioritized: 399, delayed: 5_000 }),
  },
  {
    brings: queue({ failed: 100 }),
    sentence: /^100 jobs of emails have failed\. Look at one with GET \/jobs\/\{id\}\.$/,
    not: queue({ failed: 99 }),
  },
  {
    brings: { replicasWanted: 2, ...server({ replicas: 1 }) },
    level: 'fail',
    sentence: /^DURABILITY_REPLICAS is 2 and Redis has 1: no job is acknowledged\. /,
    not: { replicasWanted: 2, ...server({ replicas: 2 }) },
  },
  {
    brings: { keysProblem: 'API_KEYS_FILE (k.json) is gone; the keys of before are in force' },
    sentence: /^API_KEYS_FILE \(k\.json\) is gone; the keys of before are in force\. Mend the file\.$/,
    not: { keysProblem: undefined },
  },
  {
    brings: { subscriptions: [{ queue: 'emails', reason: 'is paused: answered 410 in 3 ms' }] },
    sentence: /^The subscription of emails is paused: answered 410 in 3 ms\. See GET /,
    not: { subscriptions: [] },
  },
  {
    brings: { cacheEnabled: false },
    sentence: /^The cache is off \(all CACHE_TTL_\* are 0\)/,
    not: { cacheEnabled: true, queues: {} },
  },
]

t.test('advice that names a queue says which, so that it can be kept from who may not see it', async (t) => {
  const advice = [...adviceOn(queue({ failed: 100, waiting: 1_000 })), ...adviceOn({ uncounted: ['emails'] })]
  t.same(
    advice.map((one) => one.queue),
    ['emails', 'emails', 'emails'],
  )
  t.ok(adviceOn({ cacheEnabled: false }).every((one) => one.queue === undefined))
})

t.test('a healthy service gets no advice', async (t) => {
  t.same(recommend(healthy), [])
})

for (const { brings, level = 'warn', sentence, not } of cases) {
  t.test(`${level} ${sentence.source.slice(1, 60)}`, async (t) => {
    const advice = adviceOn(brings)
    t.equal(advice.length, 1, 'this sentence and no other')
    t.match(advice, [{ level, sentence }])
    t.same(adviceOn(not), [])
  })
}

t.test('each way of keeping data but the safest is warned of, in its own words', async (t) => {
  const said = ['everysec', 'no', undefined].map((appendfsync) => {
    const { durability } = parseServerInfo('aof_enabled:1', appendfsync)
    return adviceOn(server({ durability })).map(({ sentence }) => sentence)
  })
  for (const sentences of said) t.equal(sentences.length, 1)
  t.equal(new Set(said.flat()).size, 3)
})

t.test('what a server does not say is not held against it', async (t) => {
  t.same(adviceOn(server({ maxClients: null, connectedClients: 50_000 })), [], 'no limit on connections')
  t.same(adviceOn(server({ maxMemoryBytes: 0, usedMemoryBytes: 1_000 * MiB })), [], 'no limit on memory')
})

t.test('a worker that is at it is no reason to worry about those that wait', async (t) => {
  t.same(adviceOn(queue({ waiting: 100_000, active: 1 })), [])
})

t.test('everything that is wrong is told, queue by queue', async (t) => {
  const advice = adviceOn({
    ...{ server: undefined, redisError: 'gone', cacheEnabled: false },
    queues: { a: counts({ failed: 100, waiting: 1_000 }), b: counts({ failed: 500 }) },
  })
  t.same(
    advice.map(({ sentence }) => sentence.split(' ').slice(0, 4).join(' ')),
    ['Redis does not answer', '1000 jobs wait in', '100 jobs of a', '500 jobs of b', 'The cache is off'],
  )
})
