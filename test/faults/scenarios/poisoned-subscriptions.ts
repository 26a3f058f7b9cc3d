/** X5: records of webhook subscriptions that this service would not write, beside healthy ones. */
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import { attackBeside, openTarget, type Target, type TargetOptions, withChecks } from '../attacks.ts'
import { SUBSCRIPTION_FIELD } from '../careless-webhooks.ts'
import type { HttpClient } from '../clients.ts'
import { PREFIX } from '../drain.ts'
import { startFastEndpoint, subscribe } from '../endpoints.ts'
import { openLoop } from '../load.ts'
import type { Service } from '../processes.ts'
import { controlScale, type Finding, judgeTimes, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const HEALTHY = 'healthy'
/** New deliveries start within this time of a PUT, ms. */
const REPAIRED_MS = 5_000
const DELIVERED_MS = 100
const RATE_PER_S = 20

/** What replaces a record. */
const records = {
  'array-empty': '[]',
  'null-json': 'null',
  'number-json': '7',
  'object-empty': '{}',
  'url-missing': '{"queue":"url-missing","concurrency":10}',
  'url-number': '{"queue":"url-number","url":7,"concurrency":"x","headers":7,"secrets":{}}',
  'secrets-null': '{"queue":"secrets-null","url":"http://127.0.0.1:1/","headers":null,"secrets":[null]}',
  // The last two: JSON.parse fails before it reaches the others.
  'not-json': '{',
  empty: '',
}
type Kind = keyof typeof records
const kinds = Object.keys(records) as Kind[]

export const poisonedSubscriptions: Scenario = {
  id: 'X5',
  fault: 'malformed records of webhook subscriptions beside healthy ones',
  run: (testbed, scale) => poison(testbed, scale, {}),
  controls: [
    {
      what: 'a service that reads all records in one go',
      misses: 'jobs of a new healthy subscription not delivered',
      run: (testbed, scale) => poison(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

async function poison(testbed: Testbed, scale: Scale, options: TargetOptions): Promise<Finding> {
  const env = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' }
  const target = await openTarget(testbed, { env, ...options })
  const { service, ordinary } = target
  const httpClient = testbed.httpClient()
  const endpoint = await startFastEndpoint(testbed)
  const subscription = { url: endpoint.url, timeoutMs: 2_000 }
  const put = (queue: string) => subscribe(httpClient, service, queue, subscription, ordinary)
  const sent = new Map<string, number>()
  const send = async (queue: string) => {
    const at = performance.now()
    const body = JSON.stringify({ queue, name: 'n' })
    const response = await httpClient.ask(`${service.url}/jobs`, { headers: ordinary, body })
    if (response.status === 201) sent.set((JSON.parse(response.body) as { id: string }).id, at)
  }
  const undelivered = (queue: string) =>
    [...sent.keys()].filter((id) => id.startsWith(`${queue}:`) && !endpoint.arrivals.has(id)).length
  const delivered = (queue: string, timeoutMs: number) =>
    until(`${queue} is delivered`, () => undelivered(queue) === 0, timeoutMs, 50).catch(() => {})

  for (const queue of [HEALTHY, ...kinds]) await put(queue)
  const unrepaired: string[] = []
  const unserved: string[] = []
  let added = ''
  /** Starts another replica, which reads the records, and checks that it serves the healthy subscription. */
  const startReplica = async (among: string) => {
    const replica = await openReplica(testbed, target, env).catch(() => undefined)
    if (!replica || !(await servesHealthy(replica, httpClient, ordinary))) unserved.push(among)
  }
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const load = openLoop(testbed, RATE_PER_S, () => send(HEALTHY))
    await poisonRecords(target, kinds.slice(0, -2))
    if (!scale.isQuick) await startReplica('records that are JSON')
    await poisonRecords(target, kinds)
    if (!options.isBoundless) await startReplica('all records')
    await sleep((seconds * 1_000) / 2)
    added = 'added-later'
    await put(added)
    for (let i = 0; i < 5; i++) await send(added)
    await sleep((seconds * 1_000) / 2)
    await load.stop()
    await Promise.all([delivered(added, options.isBoundless ? 500 : REPAIRED_MS), delivered(HEALTHY, 2_000)])
    if (options.isBoundless) return
    const repairs = kinds.map(async (queue) => {
      await put(queue).catch(({ message }: Error) => unrepaired.push(message))
      await send(queue)
      await delivered(queue, REPAIRED_MS)
      if (undelivered(queue) > 0) unrepaired.push(queue)
    })
    await Promise.all(repairs)
  })
  const times = [...sent]
    .filter(([id]) => id.startsWith(`${HEALTHY}:`))
    .map(([id, at]) => (endpoint.arrivals.get(id)?.[0] ?? performance.now()) - at)
  return withChecks(
    finding,
    [
      { what: 'jobs of healthy subscriptions not delivered', measured: undelivered(HEALTHY), atMost: 0 },
      { what: 'jobs of a new healthy subscription not delivered', measured: undelivered(added), atMost: 0 },
      {
        what: 'new replicas that do not serve a healthy subscription',
        measured: unserved.length,
        atMost: 0,
        samples: unserved,
      },
      judgeTimes(scale, 'latency of healthy deliveries', times, DELIVERED_MS),
      {
        what: 'malformed subscriptions that a PUT does not repair',
        measured: unrepaired.length,
        atMost: 0,
        samples: unrepaired,
      },
    ],
    { deliveries: endpoint.arrivals.size, 'malformed records': kinds.length },
  )
}

function openReplica(testbed: Testbed, { redis, keysFile }: Target, env: Record<string, string>) {
  return testbed.service(redis.url, { API_KEYS_FILE: keysFile, ...env })
}

async function servesHealthy(
  { url }: Service,
  httpClient: HttpClient,
  headers: Record<string, string>,
): Promise<boolean> {
  const isServed = async () => {
    const { status, body } = await httpClient.ask(`${url}/queues/${HEALTHY}/subscription`, { headers })
    // No deliveries: this process serves it not.
    return status === 200 && (JSON.parse(body) as { deliveries: unknown }).deliveries !== null
  }
  return until('the replica serves', isServed, 2_000, 50).then(
    () => true,
    () => false,
  )
}

async function poisonRecords({ redis: { client } }: Target, kinds: Kind[]): Promise<void> {
  const keyspace = createKeyspace(PREFIX)
  for (const kind of kinds) {
    await client.hset(keyspace.subscription(kind), SUBSCRIPTION_FIELD, records[kind])
  }
  await client.sadd(keyspace.subscriptions, ...kinds)
  // Replicas read the records when the version changes.
  await client.incr(keyspace.subscriptionsVersion)
}
