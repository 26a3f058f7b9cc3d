/** Workers that wait over HTTP: how soon one has the job that comes, and what a thousand cost while none does. */
import type { Redis } from 'ioredis'
import { type Measure, redisCost, startTarget, type Target } from '../bench.ts'
import { type Answer, type Client, openClients } from '../clients.ts'
import { startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { round } from '../tables.ts'
import { type Goal, job, type Scenario } from './scenario.ts'
import { timesOf } from './work.ts'

/** Any replica opens the leases of any other. */
const SECRET = 'only-for-the-load-scenarios-0123456789'
/**
 * How long a worker has waited when the job comes, ms, at random, so that no rhythm of the service is met or missed each
 * time. Of a queue on which little happens news are read at once; on one where much does, they are read together.
 */
const RHYTHMS: [name: string, fromMs: number, toMs: number][] = [
  ['quiet queue', 50, 150],
  ['busy queue', 0, 10],
]

export const wakeUp: Scenario = {
  name: 'wake-up',
  shows:
    'From POST /jobs being sent to the lease in the hand of a worker that waits, one job at a time: at the same replica and at another on the same Redis; ten jobs a second, and as fast as the worker comes back.',
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
          const { tookMs, ackMs, errors } = await wake(near, replica, isQuick ? 20 : 300, quietMs)
          const times = timesOf(tookMs)
          rows.push({ ...unmeasured, ...times, target: 'ours', setting, errors })
          const own = timesOf(ackMs)
          const what = `${setting}, ms; the producer's own answer`
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
  ...{ requestsPerS: Number.NaN, nodeUs: Number.NaN, redisUs: Number.NaN, commands: Number.NaN },
  ...{ connections: Number.NaN, rssMb: Number.NaN },
}

async function wake(producing: Target, working: Target, samples: number, quietMs: () => number) {
  const [producer] = await openClients(producing.url, 1, '/health/live')
  const [worker, observer] = await openClients(working.url, 2, '/health/live')
  const tookMs: number[] = []
  const ackMs: number[] = []
  let errors = 0
  // The first ones compile, and begin to hear the queue's events.
  for (let n = -10; n < samples; n++) {
    const asked = worker!.post('/queues/load/leases', '{"wait":30}')
    await untilWaiting(observer!, 1)
    await pause(quietMs())
    const sentAt = performance.now()
    const since = () => performance.now() - sentAt
    const [ack, [taken, at]] = await Promise.all([
      producer!.post('/jobs', JSON.stringify(job)).then((answer) => [answer, since()] as const),
      asked.then((answer) => [answer, since()] as const),
    ])
    const isRight = await settle(worker!, taken)
    if (ack[0].status !== 201 || !isRight) errors++
    if (n < 0) continue
    tookMs.push(at)
    ackMs.push(ack[1])
  }
  for (const client of [producer!, worker!, observer!]) client.close()
  return { tookMs, ackMs, errors }
}

/** Whether the answer brought one lease, and it could be settled. */
async function settle(worker: Client, { status, body }: Answer): Promise<boolean> {
  if (status !== 200) return false
  const { jobs } = JSON.parse(body) as { jobs: { lease: string }[] }
  const items = jobs.map(({ lease }) => ({ lease, outcome: 'complete' }))
  const answer = await worker.post('/leases/settle', JSON.stringify({ items }))
  return jobs.length === 1 && answer.status === 200
}

export const idleWorkers: Scenario = {
  name: 'idle workers',
  shows:
    'Workers that wait for jobs that do not come, and ask again whenever their time is up: those of a queue began together, as the loops of one process do, each queue at a time of its own.',
  async run({ isQuick }) {
    const many = isQuick ? FEW : MANY
    // Between a lone worker's answer and its next question nobody waits for its queue.
    const alone = { ...many, count: many.queues }
    return { rows: [], goals: [...(await watch(many)), ...(await watch(alone))] }
  },
}

// A whole round, and what follows from its beginning, is over when it has settled.
const MANY: Crowd = { count: 1_000, queues: 200, waitS: 5, settleS: 12, watchS: 20 }
const FEW: Crowd = { count: 100, queues: 20, waitS: 1, settleS: 1.5, watchS: 1 }
const SERVED_MS = 2_000

interface Crowd {
  count: number
  queues: number
  waitS: number
  settleS: number
  watchS: number
}

async function watch({ count, queues, waitS, settleS, watchS }: Crowd): Promise<Goal[]> {
  const crowd = `${count} workers on ${queues} queues`
  const redis = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const [observer, ...clients] = await openClients(target.url, count + 1, '/health/live')
  const idling: Idling = { waitS, answers: 0, errors: 0, served: new Set(), isOver: false }
  const look = () => lookAt(target, redis.client, observer!, idling)
  try {
    // What is compiled once, and what a socket costs, is no worker's.
    await Promise.all(clients.map((client) => client.post('/queues/warm-up/leases', '{"wait":1}')))
    const before = { bytes: await memoryOf(target), ...(await look()) }
    progress(`idle workers · ${crowd} begin to wait`)
    const delays = Array.from({ length: queues }, () => Math.random() * waitS * 1_000)
    const working = clients.map((client, i) =>
      idle(client, `queue-${i % queues}`, delays[i % queues]!, idling),
    )
    await pause(settleS * 1_000)
    await untilWaiting(observer!, 0.9 * count)
    progress(`idle workers · ${crowd} · ${watchS} s`)
    const from = await look()
    await pause(watchS * 1_000)
    const to = await look()
    const bytes = ((await memoryOf(target)) - before.bytes) / count
    const unserved = await serveEach(observer!, queues, idling)
    for (const client of clients) client.close()
    await Promise.all(working)
    const perS = (key: 'answers' | 'commands' | 'cpuUs') => (to[key] - from[key]) / watchS
    return [
      {
        what: `Redis connections with ${crowd}, beyond before (memory of each: ${round(bytes / 1_024)} KB)`,
        measured: to.connections - before.connections,
        atMost: 0,
      },
      {
        what: `Redis commands a second meanwhile (${round(perS('answers'))} workers ask again, ${round(perS('cpuUs') / 1_000)} ms of CPU; by the service's own count ${byLabel(from.sent, to.sent, watchS)})`,
        // One is the measurement's own.
        measured: perS('commands') - 1 / watchS,
        atMost: 5,
      },
      { what: `queues whose job nobody had in hand within ${SERVED_MS} ms`, measured: unserved, atMost: 0 },
      { what: 'answers that were not as they should be', measured: idling.errors, atMost: 0 },
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
  answers: number
  errors: number
  /** Queues whose job is in a worker's hand. */
  served: Set<string>
  isOver: boolean
}

async function idle(client: Client, queue: string, delayMs: number, idling: Idling): Promise<void> {
  const body = JSON.stringify({ wait: idling.waitS })
  await pause(delayMs)
  try {
    while (!idling.isOver) {
      const answer = await client.post(`/queues/${queue}/leases`, body)
      idling.answers++
      if (answer.status === 204) continue
      // A queue has one job.
      if (!(await settle(client, answer)) || idling.served.has(queue)) idling.errors++
      idling.served.add(queue)
    }
  } catch {
    // At the end everybody hangs up.
    if (!idling.isOver) idling.errors++
  }
}

/** They do wait: a job for each queue. How many were not served in time. */
async function serveEach(producer: Client, queues: number, idling: Idling): Promise<number> {
  const jobs = Array.from({ length: queues }, (_, i) => ({ ...job, queue: `queue-${i}` }))
  await producer.post('/jobs/batch', JSON.stringify({ jobs }))
  const until = performance.now() + SERVED_MS
  while (idling.served.size < queues && performance.now() < until) await pause(5)
  idling.isOver = true
  return queues - idling.served.size
}

/** What one collection finalises, megabytes after a start, only the next one frees. */
async function memoryOf(target: Target): Promise<number> {
  await target.memory()
  return target.memory()
}

async function lookAt(target: Target, redis: Redis, observer: Client, { answers }: Idling) {
  const [{ commands, connections }, { cpuUs }, { commandsSent }] = await Promise.all([
    redisCost(redis),
    target.cost(),
    statsOf(observer),
  ])
  return { answers, commands, connections, cpuUs, sent: commandsSent }
}

type Counts = Record<string, number>

/** A second, the most first. */
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
  throw new Error(`fewer than ${count} workers wait`)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
