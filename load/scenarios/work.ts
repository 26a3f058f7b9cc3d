/**
 * Rounds of work on a filled queue, and the cost of a job to its workers. The queue is drained; the first and
 * last jobs are not measured, so that no worker finds it empty. Completed jobs are counted in Redis, for all
 * sides alike.
 */
import type { Redis } from 'ioredis'
import { type Measure, median, medianOf, redisCost, startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { round } from '../tables.ts'
import { addWaitingJobs } from './read.ts'
import type { Effort, Goal } from './scenario.ts'

/** How many of the first and of the last jobs: three times as many as all workers together can lease. */
const UNMEASURED = 1_500
const POLL_MS = 5
const WARM_UP_S = 0.1
/** The same in every scenario with a native worker. */
const NATIVE_CONCURRENCY = 50

export interface Side {
  label: string
  setting: string
  target: Target
  redis: PrivateRedis
  /** Jobs to measure for each second of a round; about half of its rate. */
  jobsPerS: number
  /** How many of the first and of the last jobs are not measured; 1,500 by default. */
  unmeasured?: number
  /** Jobs to measure in a quick run; 500 by default. */
  quickJobs?: number
  /** Fills the queue; by default with small jobs. */
  fill?(redis: PrivateRedis, jobs: number): Promise<void>
  /** CPU so far of the workers or endpoints outside the target, µs. */
  outsideUs(): Promise<number>
  /** Drains the queue. */
  work(jobs: number): Promise<Worked>
}

export interface Worked {
  /** Job ids, each as often as it was leased. */
  taken: string[]
  /** How many were settled. */
  ended: number
  requests: number
  tookMs: number[]
  /** Responses with an unexpected status. */
  errors: number
}

export interface Round extends Measure {
  /** Commands per job, including those that scripts run. */
  allCommands: number
  /** CPU per job outside the target, µs. */
  outsideUs: number
  requestsPerJob: number
  /** Jobs that were not leased once and completed once. */
  wrong: number
  /** Jobs still waiting when the measurement ended. */
  left: number
}

/** A native worker on its own Redis. `end` stops both. */
export async function openNative({ resultBytes = 0 } = {}): Promise<{ native: Side; end(): Promise<void> }> {
  const redis = await startRedis()
  const target = await startTarget('native-worker', { REDIS_SOCKET: redis.socket })
  const native: Side = {
    label: 'native',
    setting: `concurrency ${NATIVE_CONCURRENCY}`,
    target,
    redis,
    jobsPerS: 10_000,
    outsideUs: async () => Number.NaN,
    async work(jobs) {
      const query = `queue=load&jobs=${jobs}&concurrency=${NATIVE_CONCURRENCY}&resultBytes=${resultBytes}`
      const response = await fetch(`${target.url}/work?${query}`)
      const { taken, ended } = (await response.json()) as Pick<Worked, 'taken' | 'ended'>
      return { taken, ended, requests: Number.NaN, tookMs: [], errors: 0 }
    },
  }
  const end = async () => {
    await target.stop()
    await redis.stop()
  }
  return { native, end }
}

/**
 * Returns the rounds of each side. After a warm-up they take turns, so that noise on the machine affects all
 * alike.
 */
export async function workInTurn(scenario: string, sides: Side[], effort: Effort): Promise<Round[][]> {
  const jobsOf = ({ jobsPerS, unmeasured = UNMEASURED, quickJobs = 500 }: Side, seconds: number) =>
    2 * unmeasured + (effort.isQuick ? quickJobs : Math.ceil(jobsPerS * seconds))
  if (!effort.isQuick) for (const side of sides) await runRound(side, jobsOf(side, WARM_UP_S))
  const rounds = sides.map((): Round[] => [])
  for (let n = 0; n < effort.rounds; n++) {
    for (const [i, side] of sides.entries()) {
      progress(`${scenario} · round ${n + 1} of ${effort.rounds} · ${side.label}, ${side.setting}`)
      rounds[i]!.push(await runRound(side, jobsOf(side, effort.seconds)))
    }
  }
  return rounds
}

async function runRound(side: Side, jobs: number): Promise<Round> {
  const { redis, unmeasured = UNMEASURED, fill = addWaitingJobs } = side
  await redis.client.flushall()
  await fill(redis, jobs)
  let isOver = false
  const working = side.work(jobs).finally(() => {
    isOver = true
  })
  const [[from, to], worked] = await Promise.all([measure(), working])
  const completed = await completedOf(redis.client)
  const done = to.completed - from.completed
  const per = (key: 'nodeUs' | 'gcUs' | 'redisUs' | 'outsideUs' | 'commands' | 'allCommands') =>
    (to[key] - from[key]) / done
  return {
    target: side.label,
    setting: side.setting,
    requestsPerS: Math.round((done * 1_000) / (to.atMs - from.atMs)),
    ...percentilesOf(worked.tookMs),
    nodeUs: per('nodeUs'),
    gcUs: per('gcUs'),
    redisUs: per('redisUs'),
    outsideUs: per('outsideUs'),
    commands: per('commands'),
    allCommands: per('allCommands'),
    connections: to.connections,
    rssMb: to.rssMb,
    errors: worked.errors,
    left: to.waiting,
    // The first request only takes.
    requestsPerJob: (worked.requests - 1) / worked.ended,
    wrong: countWrong(worked, jobs, completed),
  }

  async function measure() {
    const samples: Sample[] = []
    for (const count of [unmeasured, jobs - unmeasured]) {
      while (!isOver && (await completedOf(redis.client)) < count) await pause(POLL_MS)
      samples.push(await sample(side))
    }
    return samples as [Sample, Sample]
  }
}

/** Jobs leased twice, not settled exactly once, or missing from the set of completed jobs. */
function countWrong({ taken, ended }: Worked, jobs: number, completed: number): number {
  const twice = taken.length - new Set(taken).size
  return twice + Math.abs(jobs - taken.length) + Math.abs(jobs - ended) + Math.abs(jobs - completed)
}

interface Sample {
  atMs: number
  completed: number
  waiting: number
  nodeUs: number
  gcUs: number
  redisUs: number
  outsideUs: number
  /** As sent by clients: a script counts once. */
  commands: number
  allCommands: number
  connections: number
  rssMb: number
}

async function sample({ target, redis: { client }, outsideUs }: Side): Promise<Sample> {
  const [at, waiting, cost, stats, node, outside] = await Promise.all([
    completedOf(client).then((completed) => ({ completed, atMs: performance.now() })),
    client.llen('bull:load:wait'),
    redisCost(client),
    client.info('commandstats'),
    target.cost(),
    outsideUs(),
  ])
  const calls = [...stats.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)].map(([, name, count]) => ({
    name,
    count: Number(count),
  }))
  // Only scripts send HGETALL here, but redisCost counts it as a client's command.
  const inScripts = calls.find(({ name }) => name === 'hgetall')?.count ?? 0
  return {
    ...at,
    waiting,
    nodeUs: node.cpuUs,
    gcUs: node.gcUs,
    redisUs: cost.cpuUs,
    outsideUs: outside,
    commands: cost.commands - inScripts,
    allCommands: calls.reduce((sum, { count }) => sum + count, 0),
    connections: Math.max(0, cost.connections - 1),
    rssMb: Math.round(node.rssBytes / 1_048_576),
  }
}

export function completedOf(client: Redis): Promise<number> {
  return client.zcard('bull:load:completed')
}

/** Checks that no job was lost or worked twice, and that no worker found the queue empty. */
export function judgeWork(rounds: Round[]): Goal[] {
  return [
    {
      what: 'jobs not leased once and completed once, in all rounds',
      measured: rounds.reduce((sum, { wrong }) => sum + wrong, 0),
      atMost: 0,
    },
    {
      what: 'fewest jobs still waiting at the end of a measurement',
      measured: Math.min(...rounds.map(({ left }) => left)),
      atLeast: 1,
    },
  ]
}

/** Parts of the text of a goal. */
export const describeAllCommands = ({ allCommands }: Round) =>
  `${round(allCommands)} including those that scripts run`
export const describeCpu = ({ nodeUs, redisUs }: Round) => `${round(nodeUs)} and Redis ${round(redisUs)}`

/** Percentiles, ms. */
export function percentilesOf(tookMs: number[]): Pick<Measure, 'p50Ms' | 'p99Ms' | 'p999Ms'> {
  const sorted = [...tookMs].sort((a, b) => a - b)
  const at = (fraction: number) => sorted[Math.floor(sorted.length * fraction)] ?? Number.NaN
  return { p50Ms: at(0.5), p99Ms: at(0.99), p999Ms: at(0.999) }
}

export function medianRound(rounds: Round[]): Round {
  const pick = (key: 'allCommands' | 'outsideUs' | 'requestsPerJob') => median(rounds.map((one) => one[key]))
  return {
    ...rounds[0]!,
    ...medianOf(rounds),
    allCommands: pick('allCommands'),
    outsideUs: pick('outsideUs'),
    requestsPerJob: pick('requestsPerJob'),
  }
}

export function toRow({ allCommands, outsideUs, requestsPerJob, wrong, left, ...row }: Round): Measure {
  return row
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
