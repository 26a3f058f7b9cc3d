/** Overload: jobs offered in an open loop at five times the maximum rate. */
import { Queue } from 'bullmq'
import { type Measure, redisCost, startTarget, type Target } from '../bench.ts'
import { type Client, openClients } from '../clients.ts'
import { type OfferedLoad, offerLoad } from '../open-loop.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { round } from '../tables.ts'
import { type Goal, job, type Scenario } from './scenario.ts'

const OVERLOAD_FACTOR = 5
/** Clients of the closed loop that finds the maximum rate. */
const PEAK_CLIENTS = 100

export const overload: Scenario = {
  name: 'overload',
  shows:
    'Jobs offered at five times the maximum rate, regardless of responses: how many are accepted, how long they take, and whether every acknowledged job is stored.',
  async run({ isQuick, seconds }) {
    const runs: Overloaded[] = []
    for (const name of isQuick ? ['ours'] : ['ours', 'shared', 'bare']) {
      const redis = await startRedis()
      const target = await startTarget(name, { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
      const clients = await openClients(target.url, isQuick ? 500 : 2_000, '/health/live')
      try {
        runs.push(await measureOverload(target, redis, clients, seconds))
      } finally {
        for (const client of clients) client.close()
        await target.stop()
        await redis.stop()
      }
    }
    const rows = runs.flatMap(({ peak, half, five, after }) =>
      [peak, half, five, after].map(({ row }) => row),
    )
    return { rows, goals: judge(runs[0]!, runs.at(-1)!) }
  },
}

interface Overloaded {
  peak: Costed
  half: Costed
  five: Costed
  after: Costed
  /** Jobs in Redis at the end. */
  stored: number
}

async function measureOverload(
  target: Target,
  redis: PrivateRedis,
  clients: Client[],
  seconds: number,
): Promise<Overloaded> {
  const body = JSON.stringify(job)
  const send = (client: Client) => client.post('/jobs', body)
  const load = async (setting: string, ratePerS: number, some: Client[]) => {
    progress(`overload · ${target.name} · ${setting}`)
    return costOf(target, redis, setting, () => offerLoad({ clients: some, send, ratePerS, seconds }))
  }
  const atFullSpeed = Number.POSITIVE_INFINITY
  const few = clients.slice(0, PEAK_CLIENTS)
  await load('warm-up', atFullSpeed, few)
  await redis.client.flushall()
  const peak = await load('maximum rate', atFullSpeed, few)
  const capacity = peak.row.requestsPerS
  const half = await load('half of it', capacity / 2, few)
  const five = await load(`${OVERLOAD_FACTOR} times it`, OVERLOAD_FACTOR * capacity, clients)
  const after = await load('maximum rate, right after', atFullSpeed, few)
  const stored = await new Queue('load', { connection: redis.client }).getWaitingCount()
  return { peak, half, five, after, stored }
}

function judge({ peak, half, five, after, stored }: Overloaded, last: Overloaded): Goal[] {
  const all = [peak, half, five, after]
  const acknowledged = all.reduce((sum, { offered }) => sum + count(offered, 201), 0)
  const unanswered = all.reduce((sum, { offered }) => sum + count(offered, 0), 0)
  const spread = ({ row }: Costed) => row.p99Ms / row.p50Ms
  const { sent, unsent, drainMs } = five.offered
  const capacity = peak.row.requestsPerS
  return [
    {
      what: `jobs accepted per second, against the maximum (${sent + unsent} offered, of which ${unsent} found no free client)`,
      measured: five.row.requestsPerS / capacity,
      atLeast: 0.9,
    },
    { what: 'the same right after the overload', measured: after.row.requestsPerS / capacity, atLeast: 0.9 },
    {
      what: `p99 against p50 at half the maximum rate (${last.half.row.target}: ${round(spread(last.half))})`,
      measured: spread(half),
      atMost: 3,
    },
    { what: 'jobs acknowledged but not stored', measured: Math.max(0, acknowledged - stored), atMost: 0 },
    {
      what: 'jobs stored without an acknowledgement',
      measured: Math.max(0, stored - acknowledged - unanswered),
      atMost: 0,
    },
    {
      what: 'time from the last request to the last response, ms',
      measured: Math.round(drainMs),
      atMost: 1_000,
    },
  ]
}

interface Costed {
  row: Measure
  offered: OfferedLoad
}

/** Rates and latencies cover accepted jobs; costs are per response. */
async function costOf(
  target: Target,
  redis: PrivateRedis,
  setting: string,
  work: () => Promise<OfferedLoad>,
): Promise<Costed> {
  const before = { node: await target.cost(), redis: await redisCost(redis.client) }
  const offered = await work()
  const after = { node: await target.cost(), redis: await redisCost(redis.client) }
  const taken = offered.latencies.get(201)
  const ms = (percentile: number) => Math.round((taken?.percentile(percentile) ?? Number.NaN) / 100) / 10
  const answered = offered.sent - count(offered, 0)
  const row: Measure = {
    target: target.name,
    setting,
    requestsPerS: Math.round((taken?.count ?? 0) / (offered.seconds + offered.drainMs / 1_000)),
    p50Ms: ms(50),
    p99Ms: ms(99),
    p999Ms: ms(99.9),
    nodeUs: (after.node.cpuUs - before.node.cpuUs) / answered,
    gcUs: Number.NaN,
    redisUs: (after.redis.cpuUs - before.redis.cpuUs) / answered,
    commands: (after.redis.commands - before.redis.commands) / answered,
    connections: Math.max(0, after.redis.connections - 1),
    rssMb: Math.round(after.node.rssBytes / 1_048_576),
    // 503 is a valid response under overload.
    errors: answered - count(offered, 201) - count(offered, 503) + count(offered, 0),
  }
  return { row, offered }
}

function count({ latencies }: OfferedLoad, status: number): number {
  return latencies.get(status)?.count ?? 0
}
