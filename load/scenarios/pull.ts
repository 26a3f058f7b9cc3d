/**
 * Workers that pull over HTTP, and a native one, each on a Redis of its own. The queue is filled beforehand, and worked to
 * the end; its first and its last jobs are not measured, so that nobody finds it empty. How many are done, and when, is
 * asked of Redis, for all alike. The HTTP workers run in the process of the load, which shares the machine with the rest.
 */
import type { Redis } from 'ioredis'
import { type Measure, median, medianOf, redisCost, startTarget, type Target } from '../bench.ts'
import { type Client, openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { round } from '../tables.ts'
import { add } from './read.ts'
import type { Goal, Scenario } from './scenario.ts'

const WORKERS = 10
const MAX = 50
/** Of the first and of the last jobs: three times as many as all workers can have in hand. */
const UNMEASURED = 1_500
const POLL_MS = 5

export const pull: Scenario = {
  name: 'pull',
  shows:
    'Workers that settle their jobs and take the next in the same request, beside a native BullMQ worker with a concurrency of 50. Rates and costs are of jobs, times of requests.',
  async run(effort) {
    const { sides, end } = await openSides()
    const jobsOf = ({ jobsPerS }: Side) => 2 * UNMEASURED + (effort.isQuick ? 500 : jobsPerS * effort.seconds)
    try {
      if (!effort.isQuick) for (const side of sides) await runRound(side, 2 * UNMEASURED + 1_000)
      const rounds = sides.map((): Round[] => [])
      for (let n = 0; n < effort.rounds; n++) {
        for (const [i, side] of sides.entries()) {
          progress(`pull · round ${n + 1} of ${effort.rounds} · ${side.label}, ${side.setting}`)
          rounds[i]!.push(await runRound(side, jobsOf(side)))
        }
      }
      const [one, all, theirs] = rounds.map(middleOf) as [Round, Round, Round]
      return { rows: [one, all, theirs].map(rowOf), goals: judge(one, all, theirs, rounds.flat()) }
    } finally {
      await end()
    }
  },
}

interface Side {
  label: string
  setting: string
  target: Target
  redis: PrivateRedis
  /** Measured for each second of a round: about half of what it does. */
  jobsPerS: number
  /** Works the queue to its end. */
  work(jobs: number): Promise<Worked>
}

interface Worked {
  /** Ids, each as often as it was handed out. */
  taken: string[]
  /** How many were accepted as done. */
  ended: number
  requests: number
  tookMs: number[]
  /** Answers that were neither jobs nor their absence. */
  errors: number
}

async function openSides() {
  const redis = await startRedis()
  const own = await startRedis()
  const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const worker = await startTarget('native-worker', { REDIS_SOCKET: own.socket })
  const clients = await openClients(target.url, WORKERS, '/health/live')
  const lone: Side = {
    ...{ label: 'ours', setting: '1 worker, max 1', target, redis, jobsPerS: 500 },
    work: () => pullAll(clients.slice(0, 1), 1),
  }
  const many: Side = {
    ...{ label: 'ours', setting: `${WORKERS} workers, max ${MAX}`, target, redis, jobsPerS: 10_000 },
    work: () => pullAll(clients, MAX),
  }
  const native: Side = {
    ...{ label: 'native', setting: `concurrency ${MAX}`, target: worker, redis: own, jobsPerS: 10_000 },
    async work(jobs) {
      const answer = await fetch(`${worker.url}/work?queue=load&jobs=${jobs}&concurrency=${MAX}`)
      const { taken, ended } = (await answer.json()) as Pick<Worked, 'taken' | 'ended'>
      return { taken, ended, requests: Number.NaN, tookMs: [], errors: 0 }
    },
  }
  const end = async () => {
    for (const client of clients) client.close()
    for (const one of [target, worker, redis, own]) await one.stop()
  }
  return { sides: [lone, many, native], end }
}

async function pullAll(clients: Client[], max: number): Promise<Worked> {
  const worked: Worked = { taken: [], ended: 0, requests: 0, tookMs: [], errors: 0 }
  await Promise.all(clients.map((client) => pullUntilEmpty(client, max, worked)))
  return worked
}

async function pullUntilEmpty(client: Client, max: number, worked: Worked): Promise<void> {
  let leases = await ask(client, '/queues/load/leases', { max }, worked)
  while (leases.length > 0) {
    const items = leases.map((lease) => ({ lease, outcome: 'complete', result: { done: true } }))
    leases = await ask(client, '/leases/settle', { items, next: { max } }, worked)
  }
}

/** The leases that the answer brings. After an answer that is none, its worker ends, and the jobs it leaves are missed. */
async function ask(client: Client, path: string, body: object, worked: Worked): Promise<string[]> {
  const sentAt = performance.now()
  const answer = await client.post(path, JSON.stringify(body))
  worked.requests++
  worked.tookMs.push(performance.now() - sentAt)
  if (answer.status === 204) return []
  if (answer.status !== 200) {
    worked.errors++
    return []
  }
  const { results = [], jobs } = JSON.parse(answer.body) as {
    results?: { status: number }[]
    jobs: { id: string; lease: string }[]
  }
  for (const { status } of results) if (status === 200) worked.ended++
  for (const { id } of jobs) worked.taken.push(id)
  return jobs.map(({ lease }) => lease)
}

interface Round extends Measure {
  /** Commands per job, with those that scripts run in Redis. */
  allCommands: number
  /** CPU per job of this process, in which the HTTP workers are, µs. */
  loadUs: number
  requestsPerJob: number
  /** Jobs that were not handed out once and completed once. */
  wrong: number
  /** Jobs that waited still when the measurement ended. */
  left: number
}

async function runRound(side: Side, jobs: number): Promise<Round> {
  const { target, redis } = side
  await redis.client.flushall()
  await add(redis, jobs)
  let isOver = false
  const working = side.work(jobs).finally(() => {
    isOver = true
  })
  const [[from, to], worked] = await Promise.all([measure(), working])
  const completed = await redis.client.zcard('bull:load:completed')
  const done = to.completed - from.completed
  const per = (key: 'nodeUs' | 'redisUs' | 'loadUs' | 'commands' | 'allCommands') =>
    (to[key] - from[key]) / done
  return {
    ...{ target: side.label, setting: side.setting },
    requestsPerS: Math.round((done * 1_000) / (to.atMs - from.atMs)),
    ...timesOf(worked.tookMs),
    ...{ nodeUs: per('nodeUs'), redisUs: per('redisUs'), loadUs: per('loadUs') },
    ...{ commands: per('commands'), allCommands: per('allCommands') },
    ...{ connections: to.connections, rssMb: to.rssMb, errors: worked.errors, left: to.waiting },
    // The first request takes, and settles nothing.
    requestsPerJob: (worked.requests - 1) / worked.ended,
    wrong: wrongOf(worked, jobs, completed),
  }

  async function measure() {
    const samples: Sample[] = []
    for (const count of [UNMEASURED, jobs - UNMEASURED]) {
      while (!isOver && (await redis.client.zcard('bull:load:completed')) < count) await pause(POLL_MS)
      samples.push(await sample(target, redis.client))
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
  loadUs: number
  /** As clients send them: a script counts once. */
  commands: number
  allCommands: number
  connections: number
  rssMb: number
}

async function sample(target: Target, client: Redis): Promise<Sample> {
  const [at, waiting, cost, stats, node] = await Promise.all([
    client.zcard('bull:load:completed').then((completed) => ({ completed, atMs: performance.now() })),
    client.llen('bull:load:wait'),
    redisCost(client),
    client.info('commandstats'),
    target.cost(),
  ])
  const { user, system } = process.cpuUsage()
  const calls = [...stats.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)].map(([, name, count]) => ({
    name,
    count: Number(count),
  }))
  // Here only scripts send it, which redisCost cannot know.
  const inScripts = calls.find(({ name }) => name === 'hgetall')?.count ?? 0
  return {
    ...at,
    ...{ waiting, nodeUs: node.cpuUs, redisUs: cost.cpuUs, loadUs: user + system },
    commands: cost.commands - inScripts,
    allCommands: calls.reduce((sum, { count }) => sum + count, 0),
    connections: Math.max(0, cost.connections - 1),
    rssMb: Math.round(node.rssBytes / 1_048_576),
  }
}

function judge(one: Round, all: Round, native: Round, rounds: Round[]): Goal[] {
  const scripts = ({ allCommands }: Round) => `${round(allCommands)} with those that scripts run`
  const cpu = ({ nodeUs, redisUs }: Round) => `${round(nodeUs)} and Redis ${round(redisUs)}`
  return [
    {
      what: 'HTTP requests per job at max 1, after the one that takes the first',
      measured: one.requestsPerJob,
      atMost: 1,
    },
    {
      what: `Redis commands per job at max 1, as they are sent (${scripts(one)})`,
      measured: one.commands,
      atMost: 2,
    },
    {
      what: `Redis commands per job at max ${MAX}, as they are sent (${scripts(all)}; native: ${round(native.commands)}, ${scripts(native)})`,
      measured: all.commands,
      atMost: 1.3,
    },
    {
      what: `jobs a second of ${WORKERS} HTTP workers at max ${MAX} (${all.requestsPerS}) against a native worker (${native.requestsPerS}); CPU of a job, µs: service ${cpu(all)}, HTTP workers ${round(all.loadUs)}; native ${cpu(native)}`,
      measured: all.requestsPerS / native.requestsPerS,
      atLeast: 0.7,
    },
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

/** Percentiles, ms. */
export function timesOf(tookMs: number[]): Pick<Measure, 'p50Ms' | 'p99Ms' | 'p999Ms'> {
  const sorted = [...tookMs].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
  return { p50Ms: at(0.5), p99Ms: at(0.99), p999Ms: at(0.999) }
}

function middleOf(rounds: Round[]): Round {
  const pick = (key: 'allCommands' | 'loadUs' | 'requestsPerJob') => median(rounds.map((one) => one[key]))
  return {
    ...rounds[0]!,
    ...medianOf(rounds),
    ...{ allCommands: pick('allCommands'), loadUs: pick('loadUs'), requestsPerJob: pick('requestsPerJob') },
  }
}

function rowOf({ allCommands, loadUs, requestsPerJob, wrong, left, ...row }: Round): Measure {
  return row
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
