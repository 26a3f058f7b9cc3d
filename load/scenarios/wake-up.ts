/** HTTP workers that wait: how soon one gets a new job, and what a thousand cost while there is none. */
import type { Redis } from 'ioredis'
import { type Measure, redisCost, startTarget, type Target } from '../bench.ts'
import { type Client, type HttpResponse, openClients } from '../clients.ts'
import { startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { round } from '../tables.ts'
import { type Goal, job, type Scenario } from './scenario.ts'
import { percentilesOf } from './work.ts'

/** Shared, so that each replica accepts the leases of the other. */
const SECRET = 'only-for-the-load-scenarios-0123456789'
/**
 * How long a worker has waited when the job arrives, ms. Random, so that it does not align with a period of
 * the service. Events of a quiet queue are read at once; those of a busy queue are read in batches.
 */
const RHYTHMS: [name: string, fromMs: number, toMs: number][] = [
  ['quiet queue', 50, 150],
  ['busy queue', 0, 10],
]

export const wakeUp: Scenario = {
  name: 'wake-up',
  shows:
    'Time from sending POST /jobs until a waiting worker has the lease, one job at a time: with the worker at the same replica and at another one, at ten jobs per second and as fast as the worker returns.',
  async run({ isQuick }) {
    const redis = await startRedis()
    const env = { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0', SECRET }
    const near = await startTarget('ours', env)
    const far = await startTarget('ours', env)
    const replicas = [['same replica', near] as const, ['another replica', far] as const]
    try {
      const rows: Measure[] = []
      const goals: Goal[] = []
      for (const [rhythm, fromMs, toMs] of RHYTHMS) {
        for (const [name, replica] of replicas) {
          const setting = `${name}, ${rhythm}`
          progress(`wake-up · ${setting}`)
          const quietMs = () => fromMs + Math.random() * (toMs - fromMs)
          const { tookMs, ackMs, errors } = await measureWakeUps(near, replica, isQuick ? 20 : 300, quietMs)
          const times = percentilesOf(tookMs)
          rows.push({ ...unmeasured, ...times, target: 'ours', setting, errors })
          const own = percentilesOf(ackMs)
          const what = `${setting}, ms; the producer's response took`
          goals.push(
            { what: `p50, ${what} ${round(own.p50Ms)}`, measured: times.p50Ms, atMost: 5 },
            { what: `p99, ${what} ${round(own.p99Ms)}`, measured: times.p99Ms, atMost: 25 },
          )
        }
      }
      return { rows, goals }
    } finally {
      await near.stop()
      await far.stop()
      await redis.stop()
    }
  },
}

const unmeasured = {
  requestsPerS: Number.NaN,
  nodeUs: Number.NaN,
  gcUs: Number.NaN,
  redisUs: Number.NaN,
  commands: Number.NaN,
  connections: Number.NaN,
  rssMb: Number.NaN,
}

async function measureWakeUps(producing: Target, working: Target, samples: number, quietMs: () => number) {
  const [producer] = await openClients(producing.url, 1, '/health/live')
  const [worker, observer] = await openClients(working.url, 2, '/health/live')
  const tookMs: number[] = []
  const ackMs: number[] = []
  let errors = 0
  // The first jobs warm up the JIT and the feed of the queue.
  for (let n = -10; n < samples; n++) {
    const pendingTake = worker!.post('/queues/load/leases', '{"wait":30}')
    await untilWaiting(observer!, 1)
    await pause(quietMs())
    const sentAt = performance.now()
    const since = () => performance.now() - sentAt
    const [ack, [taken, at]] = await Promise.all([
      producer!.post('/jobs', JSON.stringify(job)).then((response) => [response, since()] as const),
      pendingTake.then((response) => [response, since()] as const),
    ])
    const isSettled = await settle(worker!, taken)
    if (ack[0].status !== 201 || !isSettled) errors++
    if (n < 0) continue
    tookMs.push(at)
    ackMs.push(ack[1])
  }
  for (const client of [producer!, worker!, observer!]) client.close()
  return { tookMs, ackMs, errors }
}

/** Whether the response had one lease, and it could be settled. */
async function settle(worker: Client, { status, body }: HttpResponse): Promise<boolean> {
  if (status !== 200) return false
  const { jobs } = JSON.parse(body) as { jobs: { lease: string }[] }
  const items = jobs.map(({ lease }) => ({ lease, outcome: 'complete' }))
  const response = await worker.post('/leases/settle', JSON.stringify({ items }))
  return jobs.length === 1 && response.status === 200
}

export const idleWorkers: Scenario = {
  name: 'idle workers',
  shows:
    'Workers that wait for jobs that never arrive and repeat their take after each timeout. The workers of a queue start together, as the loops of one process do; the queues start at different times.',
  async run({ isQuick }) {
    const many = isQuick ? FEW : MANY
    // With one worker per queue, no take is pending between its response and its next request.
    const alone = { ...many, count: many.queues }
    return { rows: [], goals: [...(await measureIdleWorkers(many)), ...(await measureIdleWorkers(alone))] }
  },
}

// `settleS` covers a whole round of takes and the effects of its start.
const MANY: WorkerGroup = { count: 1_000, queues: 200, waitS: 5, settleS: 12, watchS: 20 }
const FEW: WorkerGroup = { count: 100, queues: 20, waitS: 1, settleS: 1.5, watchS: 1 }
const SERVED_MS = 2_000

interface WorkerGroup {
  count: number
  queues: number
  waitS: number
  settleS: number
  watchS: number
}

async function measureIdleWorkers({ count, queues, waitS, settleS, watchS }: WorkerGroup): Promise<Goal[]> {
  const group = `${count} workers on ${queues} queues`
  const redis = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const [observer, ...clients] = await openClients(target.url, count + 1, '/health/live')
  const idling: Idling = { waitS, responses: 0, errors: 0, served: new Set(), isOver: false }
  const sampleNow = () => sample(target, redis.client, observer!, idling)
  try {
    // Warms up the JIT and the sockets, whose cost must not count as the workers'.
    await Promise.all(clients.map((client) => client.post('/queues/warm-up/leases', '{"wait":1}')))
    const before = { bytes: await memoryOf(target), ...(await sampleNow()) }
    progress(`idle workers · ${group} begin to wait`)
    const delays = Array.from({ length: queues }, () => Math.random() * waitS * 1_000)
    const working = clients.map((client, i) =>
      idle(client, `queue-${i % queues}`, delays[i % queues]!, idling),
    )
    await pause(settleS * 1_000)
    await untilWaiting(observer!, 0.9 * count)
    progress(`idle workers · ${group} · ${watchS} s`)
    const from = await sampleNow()
    await pause(watchS * 1_000)
    const to = await sampleNow()
    const bytes = ((await memoryOf(target)) - before.bytes) / count
    const unserved = await countUnserved(observer!, queues, idling)
    for (const client of clients) client.close()
    await Promise.all(working)
    const perS = (key: 'responses' | 'commands' | 'cpuUs') => (to[key] - from[key]) / watchS
    return [
      {
        what: `additional Redis connections with ${group} (memory of each: ${round(bytes / 1_024)} KB)`,
        measured: to.connections - before.connections,
        atMost: 0,
      },
      {
        what: `Redis commands per second meanwhile (${round(perS('responses'))} takes repeated, ${round(perS('cpuUs') / 1_000)} ms of CPU; counted by the service: ${byLabel(from.sent, to.sent, watchS)})`,
        // One command belongs to the measurement.
        measured: perS('commands') - 1 / watchS,
        atMost: 5,
      },
      { what: `queues whose job was not taken within ${SERVED_MS} ms`, measured: unserved, atMost: 0 },
      { what: 'unexpected responses', measured: idling.errors, atMost: 0 },
    ]
  } finally {
    idling.isOver = true
    for (const client of [observer!, ...clients]) client.close()
    await target.stop()
    await redis.stop()
  }
}

interface Idling {
  waitS: number
  responses: number
  errors: number
  /** Queues whose job a worker has taken. */
  served: Set<string>
  isOver: boolean
}

async function idle(client: Client, queue: string, delayMs: number, idling: Idling): Promise<void> {
  const body = JSON.stringify({ wait: idling.waitS })
  await pause(delayMs)
  try {
    while (!idling.isOver) {
      const response = await client.post(`/queues/${queue}/leases`, body)
      idling.responses++
      if (response.status === 204) continue
      // Each queue gets one job.
      if (!(await settle(client, response)) || idling.served.has(queue)) idling.errors++
      idling.served.add(queue)
    }
  } catch {
    // All connections are closed at the end.
    if (!idling.isOver) idling.errors++
  }
}

/**
 * Proves that the workers wait: adds a job to each queue; returns how many queues were not served in time.
 */
async function countUnserved(producer: Client, queues: number, idling: Idling): Promise<number> {
  const jobs = Array.from({ length: queues }, (_, i) => ({ ...job, queue: `queue-${i}` }))
  await producer.post('/jobs/batch', JSON.stringify({ jobs }))
  const until = performance.now() + SERVED_MS
  while (idling.served.size < queues && performance.now() < until) await pause(5)
  idling.isOver = true
  return queues - idling.served.size
}

/** Twice: what the first collection finalises, megabytes after a start, only the second one frees. */
async function memoryOf(target: Target): Promise<number> {
  await target.memory()
  return target.memory()
}

async function sample(target: Target, redis: Redis, observer: Client, { responses }: Idling) {
  const [{ commands, connections }, { cpuUs }, { commandsSent }] = await Promise.all([
    redisCost(redis),
    target.cost(),
    statsOf(observer),
  ])
  return { responses, commands, connections, cpuUs, sent: commandsSent }
}

type Counts = Record<string, number>

/** Per second, largest first. */
function byLabel(from: Counts, to: Counts, seconds: number): string {
  const changes = Object.entries(to)
    .map(([label, count]) => [label, (count - (from[label] ?? 0)) / seconds] as const)
    .filter(([, perS]) => perS > 0)
    .sort(([, a], [, b]) => b - a)
  return changes.map(([label, perS]) => `${label} ${round(perS)}`).join(', ') || 'none'
}

async function statsOf(observer: Client) {
  const { body } = await observer.get('/stats')
  return JSON.parse(body) as { waitingWorkers: number; commandsSent: Counts }
}

async function untilWaiting(observer: Client, count: number): Promise<void> {
  for (let tries = 0; tries < 1_000; tries++) {
    if ((await statsOf(observer)).waitingWorkers >= count) return
    await pause(5)
  }
  throw new Error(`Fewer than ${count} workers are waiting`)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
