/**
 * HTTP workers compared with a native worker, each on its own Redis, measured by work.ts. The HTTP workers
 * run in the process of the load generator, on the same machine as everything else.
 */
import { startTarget } from '../bench.ts'
import { type Client, openClients } from '../clients.ts'
import { startRedis } from '../private-redis.ts'
import { round } from '../tables.ts'
import type { Goal, Scenario } from './scenario.ts'
import {
  describeAllCommands,
  describeCpu,
  judgeWork,
  medianRound,
  openNative,
  type Round,
  type Side,
  toRow,
  type Worked,
  workInTurn,
} from './work.ts'

const WORKERS = 10
const MAX = 50

export const pull: Scenario = {
  name: 'pull',
  shows:
    'HTTP workers that settle jobs and take the next ones in the same request, compared with a native BullMQ worker with a concurrency of 50. Rates and costs are per job, latencies per request.',
  async run(effort) {
    const { sides, end } = await openSides()
    try {
      const rounds = await workInTurn('pull', sides, effort)
      const [one, all, theirs] = rounds.map(medianRound) as [Round, Round, Round]
      return {
        rows: [one, all, theirs].map(toRow),
        goals: [...judge(one, all, theirs), ...judgeWork(rounds.flat())],
      }
    } finally {
      await end()
    }
  },
}

async function openSides() {
  const redis = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const { native, end: endNative } = await openNative()
  const clients = await openClients(target.url, WORKERS, '/health/live')
  const outsideUs = async () => {
    const { user, system } = process.cpuUsage()
    return user + system
  }
  const lone: Side = {
    label: 'ours',
    setting: '1 worker, max 1',
    target,
    redis,
    jobsPerS: 500,
    outsideUs,
    work: () => pullAll(clients.slice(0, 1), 1),
  }
  const many: Side = {
    label: 'ours',
    setting: `${WORKERS} workers, max ${MAX}`,
    target,
    redis,
    jobsPerS: 10_000,
    outsideUs,
    work: () => pullAll(clients, MAX),
  }
  const end = async () => {
    for (const client of clients) client.close()
    await target.stop()
    await redis.stop()
    await endNative()
  }
  return { sides: [lone, many, native], end }
}

async function pullAll(clients: Client[], max: number): Promise<Worked> {
  const worked: Worked = { taken: [], ended: 0, requests: 0, tookMs: [], errors: 0 }
  await Promise.all(clients.map((client) => pullUntilEmpty(client, max, worked)))
  return worked
}

async function pullUntilEmpty(client: Client, max: number, worked: Worked): Promise<void> {
  let leases = await requestLeases(client, '/queues/load/leases', { max }, worked)
  while (leases.length > 0) {
    const items = leases.map((lease) => ({ lease, outcome: 'complete', result: { done: true } }))
    leases = await requestLeases(client, '/leases/settle', { items, next: { max } }, worked)
  }
}

/**
 * The leases in the response; none after an error, which ends the worker, so that its jobs count as wrong.
 */
async function requestLeases(client: Client, path: string, body: object, worked: Worked): Promise<string[]> {
  const sentAt = performance.now()
  const response = await client.post(path, JSON.stringify(body))
  worked.requests++
  worked.tookMs.push(performance.now() - sentAt)
  if (response.status === 204) return []
  if (response.status !== 200) {
    worked.errors++
    return []
  }
  const { results = [], jobs } = JSON.parse(response.body) as {
    results?: { status: number }[]
    jobs: { id: string; lease: string }[]
  }
  for (const { status } of results) if (status === 200) worked.ended++
  for (const { id } of jobs) worked.taken.push(id)
  return jobs.map(({ lease }) => lease)
}

function judge(one: Round, all: Round, native: Round): Goal[] {
  return [
    {
      what: 'HTTP requests per job at max 1, after the first take',
      measured: one.requestsPerJob,
      atMost: 1,
    },
    {
      what: `Redis commands per job at max 1, as sent by clients (${describeAllCommands(one)})`,
      measured: one.commands,
      atMost: 2,
    },
    {
      what: `Redis commands per job at max ${MAX}, as sent by clients (${describeAllCommands(all)}; native: ${round(native.commands)}, ${describeAllCommands(native)})`,
      measured: all.commands,
      atMost: 1.3,
    },
    {
      what: `jobs per second of ${WORKERS} HTTP workers at max ${MAX} (${all.requestsPerS}) against a native worker (${native.requestsPerS}); CPU per job, µs: service ${describeCpu(all)}, HTTP workers ${round(all.outsideUs)}; native ${describeCpu(native)}`,
      measured: all.requestsPerS / native.requestsPerS,
      atLeast: 0.7,
    },
  ]
}
