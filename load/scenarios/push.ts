/**
 * Webhook deliveries compared with a native worker, each on its own Redis, measured by work.ts. The endpoint
 * is a separate process on the same machine.
 */
import { startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { round } from '../tables.ts'
import { type Goal, json, type Scenario } from './scenario.ts'
import {
  completedOf,
  describeAllCommands,
  describeCpu,
  judgeWork,
  medianRound,
  openNative,
  pause,
  type Round,
  type Side,
  toRow,
  type Worked,
  workInTurn,
} from './work.ts'

const CONCURRENCY = 100
const POLL_MS = 20
/** The round ends when no job has completed for this long; the missing jobs count as wrong. */
const STALL_MS = 10_000

export const push: Scenario = {
  name: 'push',
  shows: `Jobs delivered to a webhook, ${CONCURRENCY} in flight, compared with a native BullMQ worker with a concurrency of 50. Rates and costs are per job.`,
  async run(effort) {
    const { ours, end } = await openOurs()
    const { native, end: endNative } = await openNative()
    try {
      const rounds = await workInTurn('push', [ours, native], effort)
      const [sent, theirs] = rounds.map(medianRound) as [Round, Round]
      return {
        rows: [sent, theirs].map(toRow),
        goals: [...judge(sent, theirs), ...judgeWork(rounds.flat())],
      }
    } finally {
      await end()
      await endNative()
    }
  },
}

async function openOurs(): Promise<{ ours: Side; end(): Promise<void> }> {
  const redis = await startRedis()
  const endpoint = await startTarget('receiver', {})
  const target = await startTarget('ours', {
    REDIS_SOCKET: redis.socket,
    MAX_CONNECTIONS: '0',
    WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8',
  })
  const ours: Side = {
    label: 'ours',
    setting: `concurrency ${CONCURRENCY}`,
    target,
    redis,
    jobsPerS: 2_500,
    outsideUs: async () => (await endpoint.cost()).cpuUs,
    work: (jobs) => deliverAll(target, endpoint, redis, jobs),
  }
  const end = async () => {
    for (const one of [target, endpoint, redis]) await one.stop()
  }
  return { ours, end }
}

/** Subscribes, waits for all jobs and unsubscribes, so that every round starts from the same state. */
async function deliverAll(
  target: Target,
  endpoint: Target,
  redis: PrivateRedis,
  jobs: number,
): Promise<Worked> {
  const url = `${target.url}/queues/load/subscription`
  const body = JSON.stringify({ url: `${endpoint.url}/hook`, concurrency: CONCURRENCY })
  const put = await fetch(url, { method: 'PUT', headers: json, body })
  if (put.status !== 201) throw new Error(`PUT of the subscription returned ${put.status}`)
  await untilCompleted(redis, jobs)
  const deleted = await fetch(url, { method: 'DELETE' })
  const deliveries = (await (await fetch(endpoint.url)).json()) as [string, number][]
  return {
    taken: deliveries.flatMap(([id, count]) => Array<string>(count).fill(id)),
    ended: await attemptsOf(redis, jobs),
    requests: Number.NaN,
    tookMs: [],
    errors: deleted.status === 204 ? 0 : 1,
  }
}

async function untilCompleted({ client }: PrivateRedis, jobs: number): Promise<void> {
  let completed = 0
  for (let sinceMs = performance.now(); completed < jobs; await pause(POLL_MS)) {
    const now = await completedOf(client)
    if (now > completed) sinceMs = performance.now()
    else if (performance.now() - sinceMs > STALL_MS) return
    completed = now
  }
}

/** BullMQ counts in each job how often it completed or failed. */
async function attemptsOf({ client }: PrivateRedis, jobs: number): Promise<number> {
  const keys = Array.from({ length: jobs }, (_, i) => `bull:load:job-${i}`)
  const counts = await Promise.all(keys.map((key) => client.hget(key, 'atm')))
  return counts.reduce((sum, count) => sum + Number(count), 0)
}

function judge(sent: Round, native: Round): Goal[] {
  return [
    {
      what: `jobs delivered and completed per second (${sent.requestsPerS}) against a native worker (${native.requestsPerS}); CPU per job, µs: service ${describeCpu(sent)}, endpoint ${round(sent.outsideUs)}; native ${describeCpu(native)}`,
      measured: sent.requestsPerS / native.requestsPerS,
      atLeast: 0.4,
    },
    {
      what: `Redis commands per job, as sent by clients (${describeAllCommands(sent)}; native: ${round(native.commands)}, ${describeAllCommands(native)})`,
      measured: sent.commands,
      atMost: 1,
    },
  ]
}
