/**
 * Rounds of work on a filled queue, and what a job costs those who work it. The queue is worked to its end; its first and
 * its last jobs are not measured, so that nobody finds it empty. How many are done, and when, is asked of Redis, for all
 * alike.
 */
import type { Redis } from 'ioredis'
import { type Measure, median, medianOf, redisCost, startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { round } from '../tables.ts'
import { add } from './read.ts'
import type { Effort, Goal } from './scenario.ts'

/** Of the first and of the last jobs: three times as many as all workers can have in hand. */
const UNMEASURED = 1_500
const POLL_MS = 5
/** Of the native worker, which is the same in each scenario that it is measured in. */
const NATIVE_CONCURRENCY = 50

export interface Side {
  label: string
  setting: string
  target: Target
  redis: PrivateRedis
  /** Measured for each second of a round: about half of what it does. */
  jobsPerS: number
  /** CPU so far of those outside the target who do its work, µs. */
  outsideUs(): Promise<number>
  /** Works the queue to its end. */
  work(jobs: number): Promise<Worked>
}

export interface Worked {
  /** Ids, each as often as it was handed out. */
  taken: string[]
  /** How many were accepted as done. */
  ended: number
  requests: number
  tookMs: number[]
  /** Answers that were neither jobs nor their absence. */
  errors: number
}

export interface Round extends Measure {
  /** Commands per job, with those that scripts run in Redis. */
  allCommands: number
  /** CPU per job of those outside the target, µs. */
  outsideUs: number
  requestsPerJob: number
  /** Jobs that were not handed out once and completed once. */
  wrong: number
  /** Jobs that waited still when the measurement ended. */
  left: number
}

/** What a native worker does on a Redis of its own. `end` stops both. */
export async function openNative(): Promise<{ native: Side; end(): Promise<void> }> {
  const redis = await startRedis()
  const target = await startTarget('native-worker', { REDIS_SOCKET: redis.socket })
  const native: Side = {
    ...{ label: 'native', setting: `concurrency ${NATIVE_CONCURRENCY}`, target, redis, jobsPerS: 10_000 },
    outsideUs: async () => Number.NaN,
    async work(jobs) {
      const query = `queue=load&jobs=${jobs}&concurrency=${NATIVE_CONCURRENCY}`
      const answer = await fetch(`${target.url}/work?${query}`)
      const { taken, ended } = (await answer.json()) as Pick<Worked, 'taken' | 'ended'>
      return { taken, ended, requests: Number.NaN, tookMs: [], errors: 0 }
    },
  }
  const end = async () => {
    await target.stop()
    await redis.stop()
  }
  return { native, end }
}

/** After a warm-up, rounds in turn, so that a noisy machine hits all alike. Of each side its rounds. */
export async function workInTurn(scenario: string, sides: Side[], effort: Effort): Promise<Round[][]> {
  const jobsOf = ({ jobsPerS }: Side) => 2 * UNMEASURED + (effort.isQuick ? 500 : jobsPerS * effort.seconds)
  if (!effort.isQuick) for (const side of sides) await runRound(side, 2 * UNMEASURED + 1_000)
  const rounds = sides.map((): Round[] => [])
  for (let n = 0; n < effort.rounds; n++) {
    for (const [i, side] of sides.entries()) {
      progress(`${scenario} · round ${n + 1} of ${effort.rounds} · ${side.label}, ${side.setting}`)
      rounds[i]!.push(await runRound(side, jobsOf(side)))
    }
  }
  return rounds
}

async function runRound(side: Side, jobs: number): Promise<Round> {
  const { redis } = side
  await redis.client.flushall()
  await add(redis, jobs)
  let isOver = false
  const working = side.work(jobs).finally(() => {
    isOver = true
  })
  const [[from, to], worked] = await Promise.all([measure(), working])
  const completed = await completedOf(redis.client)
  const done = to.completed - from.completed
  const per = (key: 'nodeUs' | 'redisUs' | 'outsideUs' | 'commands' | 'allCommands') =>
    (to[key] - from[key]) / done
  return {
    ...{ target: side.label, setting: side.setting },
    requestsPerS: Math.round((done * 1_000) / (to.atMs - from.atMs)),
    ...timesOf(worked.tookMs),
    ...{ nodeUs: per('nodeUs'), redisUs: per('redisUs'), outsideUs: per('outsideUs') },
    ...{ commands: per('commands'), allCommands: per('allCommands') },
    ...{ connections: to.connections, rssMb: to.rssMb, errors: worked.errors, left: to.waiting },
    // The first request takes, and settles nothing.
    requestsPerJob: (worked.requests - 1) / worked.ended,
    wrong: wrongOf(worked, jobs, completed),
  }

  async function measure() {
    const samples: Sample[] = []
    for (const count of [UNMEASURED, jobs - UNMEASURED]) {
      while (!isOver && (await completedOf(redis.client)) < count) await pause(POLL_MS)
      samples.push(await sample(side))
    }
    return samples as [Sample, Sample]
  }
}

/** Handed out twice, not (or twice) said to be done, not in the set of completed jobs. */
function wrongOf({ taken, ended }: Worked, jobs: number, completed: number): number {
  const twice = taken.length - new Set(taken).size
  return twice + Math.abs(jobs - taken.length) + Math.abs(jobs - ended) + Math.abs(jobs - completed)
}

interface Sample {
  atMs: number
  completed: number
  waiting: number
  nodeUs: number
  redisUs: number
  outsideUs: number
  /** As clients send them: a script counts once. */
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
  // Here only scripts send it, which redisCost cannot know.
  const inScripts = calls.find(({ name }) => name === 'hgetall')?.count ?? 0
  return {
    ...at,
    ...{ waiting, nodeUs: node.cpuUs, redisUs: cost.cpuUs, outsideUs: outside },
    commands: cost.commands - inScripts,
    allCommands: calls.reduce((sum, { count }) => sum + count, 0),
    connections: Math.max(0, cost.connections - 1),
    rssMb: Math.round(node.rssBytes / 1_048_576),
  }
}

export function completedOf(client: Redis): Promise<number> {
  return client.zcard('bull:load:completed')
}

/** That no job was lost or done twice, and nobody found the queue empty. */
export function judgeWork(rounds: Round[]): Goal[] {
  return [
    {
      what: 'jobs that were not handed out once and completed once, of all rounds',
      measured: rounds.reduce((sum, { wrong }) => sum + wrong, 0),
      atMost: 0,
    },
    {
      what: 'jobs that waited at the end of each measurement, at least',
      measured: Math.min(...rounds.map(({ left }) => left)),
      atLeast: 1,
    },
  ]
}

/** For the sentence of a goal. */
export const withScripts = ({ allCommands }: Round) => `${round(allCommands)} with those that scripts run`
export const cpuOf = ({ nodeUs, redisUs }: Round) => `${round(nodeUs)} and Redis ${round(redisUs)}`

/** Percentiles, ms. */
export function timesOf(tookMs: number[]): Pick<Measure, 'p50Ms' | 'p99Ms' | 'p999Ms'> {
  const sorted = [...tookMs].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
  return { p50Ms: at(0.5), p99Ms: at(0.99), p999Ms: at(0.999) }
}

export function middleOf(rounds: Round[]): Round {
  const pick = (key: 'allCommands' | 'outsideUs' | 'requestsPerJob') => median(rounds.map((one) => one[key]))
  return {
    ...rounds[0]!,
    ...medianOf(rounds),
    ...{
      allCommands: pick('allCommands'),
      outsideUs: pick('outsideUs'),
      requestsPerJob: pick('requestsPerJob'),
    },
  }
}

export function rowOf({ allCommands, outsideUs, requestsPerJob, wrong, left, ...row }: Round): Measure {
  return row
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
