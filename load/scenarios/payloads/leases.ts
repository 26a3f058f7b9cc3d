/**
 * HTTP workers that take jobs with structured data and settle them with structured results, compared with a
 * native worker, each on its own Redis. The HTTP workers run in the process of the load generator.
 */
import { Queue } from 'bullmq'
import { type Measure, median, startTarget } from '../../bench.ts'
import { type Client, openClients } from '../../clients.ts'
import { type PrivateRedis, startRedis } from '../../private-redis.ts'
import { type Effort, type Goal, job, type Scenario } from '../scenario.ts'
import {
  judgeWork,
  medianRound,
  openNative,
  type Round,
  type Side,
  toRow,
  type Worked,
  workInTurn,
} from '../work.ts'
import { createOrder, KB } from './orders.ts'

const WORKERS = 10
const RESULTS = 20
/** The data of one addBulk that fills the queue, bytes. */
const FILL_BYTES = 5_000_000

interface Size {
  name: string
  bytes: number
  /** Jobs of one request, whose results fit in a body of the default size. */
  max: number
  jobsPerS: number
  unmeasured: number
}

const sizes: Size[] = [
  { name: '1 KB', bytes: KB, max: 50, jobsPerS: 5_000, unmeasured: 1_500 },
  { name: '10 KB', bytes: 10 * KB, max: 50, jobsPerS: 1_500, unmeasured: 1_500 },
  { name: '200 KB', bytes: 200 * KB, max: 4, jobsPerS: 100, unmeasured: 150 },
]

export const leasePayloads: Scenario = {
  name: 'lease payloads',
  shows:
    'HTTP workers that take jobs with data of 1, 10 and 200 KB and settle them with results of the same size, compared with a native BullMQ worker with a concurrency of 50, which parses the data and serializes the results. Rates and costs are per job, latencies per request; the ratios are medians of those of each round.',
  chart: 'Node µs',
  async run(effort) {
    const rows: Measure[] = []
    const goals: Goal[] = []
    for (const size of effort.isQuick ? sizes.slice(1, 2) : sizes) {
      const result = await compareWorkers(size, effort)
      rows.push(...result.rows)
      goals.push(...result.goals)
    }
    return { rows, goals }
  },
}

async function compareWorkers(size: Size, effort: Effort) {
  const { name, bytes, jobsPerS, unmeasured } = size
  const redis = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const { native, end } = await openNative({ resultBytes: bytes })
  const clients = await openClients(target.url, WORKERS, '/health/live')
  const shared = {
    jobsPerS,
    unmeasured,
    quickJobs: 200,
    fill: (filled: PrivateRedis, jobs: number) => addOrders(filled, jobs, bytes),
  }
  const results = Array.from({ length: RESULTS }, (_, number) => JSON.stringify(createOrder(number, bytes)))
  const ours: Side = {
    label: 'ours',
    setting: name,
    target,
    redis,
    outsideUs: async () => Number.NaN,
    work: () => workAll(clients, size.max, results),
    ...shared,
  }
  try {
    const rounds = await workInTurn('lease payloads', [ours, { ...native, setting: name, ...shared }], effort)
    return judge(name, rounds as [Round[], Round[]])
  } finally {
    for (const client of clients) client.close()
    await target.stop()
    await redis.stop()
    await end()
  }
}

function judge(name: string, [ours, native]: [Round[], Round[]]) {
  const ratio = (key: 'nodeUs' | 'requestsPerS') =>
    median(ours.map((round, i) => round[key] / native[i]![key]))
  const [cpu, rate] = [ratio('nodeUs'), ratio('requestsPerS')]
  const row: Measure = {
    ...toRow(medianRound(ours)),
    more: { 'Node µs, × native': cpu, 'rate, × native': rate },
  }
  const goals: Goal[] = [
    { what: `Node CPU per job with ${name}, against a native worker`, measured: cpu, atMost: 1 },
    ...judgeWork([...ours, ...native]).map((goal) => ({ ...goal, what: `${name}: ${goal.what}` })),
  ]
  return { rows: [row, toRow(medianRound(native))], goals }
}

/** Adds the waiting jobs `job-0`, `job-1`, …, whose data are orders. */
async function addOrders(redis: PrivateRedis, count: number, bytes: number): Promise<void> {
  const queue = new Queue('load', { connection: redis.client })
  const atOnce = Math.ceil(FILL_BYTES / bytes)
  const data = Array.from({ length: Math.min(count, 200) }, (_, number) => createOrder(number, bytes))
  for (let from = 0; from < count; from += atOnce) {
    const size = Math.min(atOnce, count - from)
    await queue.addBulk(
      Array.from({ length: size }, (_, i) => ({
        name: job.name,
        data: data[(from + i) % data.length],
        opts: { jobId: `job-${from + i}` },
      })),
    )
  }
}

async function workAll(clients: Client[], max: number, results: string[]): Promise<Worked> {
  const worked: Worked = { taken: [], ended: 0, requests: 0, tookMs: [], errors: 0 }
  await Promise.all(clients.map((client) => workUntilEmpty(client, max, results, worked)))
  return worked
}

async function workUntilEmpty(client: Client, max: number, results: string[], worked: Worked): Promise<void> {
  let leases = await request(client, '/queues/load/leases', `{"max":${max}}`, worked)
  while (leases.length > 0) {
    const items = leases.map(
      (lease, i) =>
        `{"lease":"${lease}","outcome":"complete","result":${results[(worked.ended + i) % results.length]}}`,
    )
    leases = await request(client, '/leases/settle', `{"items":[${items}],"next":{"max":${max}}}`, worked)
  }
}

/** The leases in the response. It is not parsed: workers that cost more than the service would slow it down. */
async function request(client: Client, path: string, text: string, worked: Worked): Promise<string[]> {
  const sentAt = performance.now()
  const { status, body } = await client.post(path, text)
  worked.requests++
  worked.tookMs.push(performance.now() - sentAt)
  if (status === 204) return []
  if (status !== 200) {
    worked.errors++
    return []
  }
  const jobsAt = body.indexOf('"jobs":[')
  const settled = body.slice(0, jobsAt)
  const jobs = body.slice(jobsAt)
  worked.ended += [...settled.matchAll(/"status":200/g)].length
  for (const [, id] of jobs.matchAll(/"id":"load:(job-\d+)"/g)) worked.taken.push(id!)
  return [...jobs.matchAll(/"lease":"([^"]+)"/g)].map(([, lease]) => lease!)
}
