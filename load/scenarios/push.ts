/**
 * Jobs that are sent to a receiver, and a native worker, each on a Redis of its own; how they are measured: work.ts. The
 * receiver is a process of its own as well, which shares the machine with the rest.
 */
import { startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { round } from '../tables.ts'
import { type Goal, json, type Scenario } from './scenario.ts'
import {
  completedOf,
  cpuOf,
  judgeWork,
  middleOf,
  openNative,
  pause,
  type Round,
  rowOf,
  type Side,
  type Worked,
  withScripts,
  workInTurn,
} from './work.ts'

const CONCURRENCY = 100
const LOOK_MS = 20
/** Nothing was completed for so long: what is missing is counted then. */
const PATIENCE_MS = 10_000

export const push: Scenario = {
  name: 'push',
  shows: `Jobs sent to a webhook, ${CONCURRENCY} at once, beside a native BullMQ worker with a concurrency of 50. Rates and costs are of jobs.`,
  async run(effort) {
    const { ours, end } = await openOurs()
    const { native, end: endNative } = await openNative()
    try {
      const rounds = await workInTurn('push', [ours, native], effort)
      const [sent, theirs] = rounds.map(middleOf) as [Round, Round]
      return {
        rows: [sent, theirs].map(rowOf),
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
  const receiver = await startTarget('receiver', {})
  const target = await startTarget('ours', {
    ...{ REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' },
    WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8',
  })
  const ours: Side = {
    ...{ label: 'ours', setting: `concurrency ${CONCURRENCY}`, target, redis, jobsPerS: 2_500 },
    outsideUs: async () => (await receiver.cost()).cpuUs,
    work: (jobs) => sendAll(target, receiver, redis, jobs),
  }
  const end = async () => {
    for (const one of [target, receiver, redis]) await one.stop()
  }
  return { ours, end }
}

/** The subscription is there for as long as there are jobs, so that the next round finds the service as this one did. */
async function sendAll(target: Target, receiver: Target, redis: PrivateRedis, jobs: number): Promise<Worked> {
  const url = `${target.url}/queues/load/subscription`
  const body = JSON.stringify({ url: `${receiver.url}/hook`, concurrency: CONCURRENCY })
  const put = await fetch(url, { method: 'PUT', headers: json, body })
  if (put.status !== 201) throw new Error(`The subscription was answered with ${put.status}`)
  await untilCompleted(redis, jobs)
  const deleted = await fetch(url, { method: 'DELETE' })
  const deliveries = (await (await fetch(receiver.url)).json()) as [string, number][]
  return {
    taken: deliveries.flatMap(([id, count]) => Array<string>(count).fill(id)),
    ended: await attemptsOf(redis, jobs),
    ...{ requests: Number.NaN, tookMs: [], errors: deleted.status === 204 ? 0 : 1 },
  }
}

async function untilCompleted({ client }: PrivateRedis, jobs: number): Promise<void> {
  let completed = 0
  for (let sinceMs = performance.now(); completed < jobs; await pause(LOOK_MS)) {
    const now = await completedOf(client)
    if (now > completed) sinceMs = performance.now()
    else if (performance.now() - sinceMs > PATIENCE_MS) return
    completed = now
  }
}

/** BullMQ counts on each job how often it was completed or failed. */
async function attemptsOf({ client }: PrivateRedis, jobs: number): Promise<number> {
  const keys = Array.from({ length: jobs }, (_, i) => `bull:load:job-${i}`)
  const counts = await Promise.all(keys.map((key) => client.hget(key, 'atm')))
  return counts.reduce((sum, count) => sum + Number(count), 0)
}

function judge(sent: Round, native: Round): Goal[] {
  return [
    {
      what: `jobs a second that are sent and completed (${sent.requestsPerS}) against a native worker (${native.requestsPerS}); CPU of a job, µs: service ${cpuOf(sent)}, receiver ${round(sent.outsideUs)}; native ${cpuOf(native)}`,
      measured: sent.requestsPerS / native.requestsPerS,
      atLeast: 0.4,
    },
    {
      what: `Redis commands per job, as they are sent (${withScripts(sent)}; native: ${round(native.commands)}, ${withScripts(native)})`,
      measured: sent.commands,
      atMost: 1,
    },
  ]
}
