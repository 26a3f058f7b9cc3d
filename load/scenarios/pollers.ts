/**
 * A thousand clients poll a thousand jobs while native BullMQ workers process them: what a poll costs, how
 * stale its response is, and whether a job ever appears to move backwards.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Queue } from 'bullmq'
import { type Measure, median, startTarget, type Target } from '../bench.ts'
import { type Client, openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { type Effort, job, type Scenario } from './scenario.ts'

/** Time between a response and the client's next poll, ms. */
const THINK_MS = 200

interface Poll {
  key: string
  sentAtMs: number
  tookMs: number
  rank: number
}

interface Round extends Measure {
  responsesPerCpuS: number
  /**
   * For each response, ms: how long before the request the first change happened that the response does not
   * show.
   */
  staleness: number[]
  backward: number
}

export const pollers: Scenario = {
  name: 'pollers',
  shows:
    'Clients poll while native workers process their jobs: what a poll costs, and how stale a response is.',
  async run(effort) {
    const count = effort.isQuick ? 100 : 1_000
    const sides = ['ours', 'ours, with ETag', 'shared', 'naive']
    const rounds: Record<string, Round[]> = {}
    for (let round = 0; round < Math.min(effort.rounds, 2); round++) {
      for (const side of sides) {
        progress(`pollers · round ${round + 1} · ${side}`)
        rounds[side] ??= []
        rounds[side].push(await runSide(side, count, effort))
      }
    }
    const rows = sides.map((side) => medianRound(rounds[side]!))
    const [ours, , , naive] = rows as [Round, Round, Round, Round]
    const stale = rounds['ours']!.flatMap(({ staleness }) => staleness).sort((a, b) => a - b)
    const at = (fraction: number) =>
      stale[Math.min(stale.length - 1, Math.floor(stale.length * fraction))] ?? 0
    const old = stale.filter((ms) => ms > 0)
    return {
      rows: rows.map(({ staleness, backward, responsesPerCpuS, ...measure }): Measure => measure),
      goals: [
        { what: 'Redis commands per poll', measured: ours.commands, atMost: 0.02 },
        {
          what: 'responses per CPU second, against naive',
          measured: ours.responsesPerCpuS / naive.responsesPerCpuS,
          atLeast: 10,
        },
        {
          what: `staleness p99, ms (${old.length} of ${stale.length} responses were stale)`,
          measured: at(0.99),
          atMost: 100,
        },
        { what: 'staleness max, ms', measured: at(1), atMost: 300 },
        { what: 'jobs that appeared to move backwards', measured: ours.backward, atMost: 0 },
      ],
    }
  },
}

async function runSide(side: string, count: number, effort: Effort): Promise<Round> {
  const [name, ...options] = side.split(', ')
  const seconds = effort.isQuick ? 1 : Math.max(3, effort.seconds * 2)
  const redis = await startRedis()
  const target = await startTarget(name!, { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
  const clients = await openClients(target.url, count, '/jobs/none')
  try {
    const keys = await addJobs(redis, count)
    const before = { node: await target.cost(), commands: await commandsOf(target) }
    const workers = await startWorkers(redis, seconds, count)
    const polls: Poll[] = []
    const errors = { count: 0 }
    const until = performance.now() + seconds * 1_000
    await Promise.all(
      clients.map((client, i) => poll(client, keys[i]!, options.length > 0, until, polls, errors)),
    )
    const after = { node: await target.cost(), commands: await commandsOf(target) }
    return judge(side, polls, await workers.stop(), {
      cpuUs: after.node.cpuUs - before.node.cpuUs,
      commands: after.commands - before.commands,
      rssMb: Math.round(after.node.rssBytes / 1_048_576),
      seconds,
      errors: errors.count,
    })
  } finally {
    for (const client of clients) client.close()
    await target.stop()
    await redis.stop()
  }
}

async function addJobs(redis: PrivateRedis, count: number): Promise<string[]> {
  const queue = new Queue('load', { connection: redis.client })
  const keys = Array.from({ length: count }, (_, i) => `job-${i}`)
  await queue.addBulk(keys.map((jobId) => ({ name: job.name, data: job.data, opts: { jobId } })))
  return keys
}

/** Chooses a concurrency at which the jobs last as long as the round. */
async function startWorkers(redis: PrivateRedis, seconds: number, count: number) {
  const concurrency = Math.ceil(count / 20)
  const child = fork(new URL('../targets/worker.js', import.meta.url), {
    env: {
      ...process.env,
      REDIS_SOCKET: redis.socket,
      CONCURRENCY: `${concurrency}`,
      JOB_MS: `${(seconds * 1_000 * concurrency) / count}`,
    },
  })
  await once(child, 'message')
  return {
    async stop(): Promise<[key: string, rank: number, atMs: number][]> {
      child.send('stop')
      const [changes] = (await once(child, 'message')) as [[string, number, number][]]
      await once(child, 'exit')
      return changes
    },
  }
}

async function poll(
  client: Client,
  key: string,
  withEtag: boolean,
  until: number,
  polls: Poll[],
  errors: { count: number },
): Promise<void> {
  let etag: string | undefined
  let rank = 0
  await pause(Math.random() * THINK_MS)
  while (performance.now() < until) {
    const sentAtMs = performance.timeOrigin + performance.now()
    const response = await client.get(`/jobs/load:${key}`, withEtag ? etag : undefined)
    if (response.status === 200) rank = rankOf(JSON.parse(response.body))
    else if (response.status !== 304) errors.count++
    etag = response.etag
    polls.push({ key, sentAtMs, tookMs: performance.timeOrigin + performance.now() - sentAtMs, rank })
    await pause(THINK_MS)
  }
}

/** The workers' ranks: 0 not started, 1 active, 2 half-way, 3 completed. */
function rankOf({ state, progress }: { state: string; progress: unknown }): number {
  if (state === 'completed') return 3
  if (state === 'active') return progress === 50 ? 2 : 1
  return 0
}

interface Costs {
  cpuUs: number
  commands: number
  rssMb: number
  seconds: number
  errors: number
}

function judge(target: string, polls: Poll[], changes: [string, number, number][], costs: Costs): Round {
  const madeAt = new Map(changes.map(([key, rank, atMs]) => [`${key} ${rank}`, atMs]))
  const staleness = polls.map(({ key, rank, sentAtMs }) => {
    const unseen = madeAt.get(`${key} ${rank + 1}`) ?? Number.POSITIVE_INFINITY
    return Math.max(0, sentAtMs - unseen)
  })
  const newest = new Map<string, number>()
  let backward = 0
  for (const { key, rank } of polls) {
    if (rank < (newest.get(key) ?? 0)) backward++
    newest.set(key, rank)
  }
  const times = polls.map(({ tookMs }) => tookMs).sort((a, b) => a - b)
  return {
    target,
    setting: '',
    requestsPerS: Math.round(polls.length / costs.seconds),
    p50Ms: Math.round(times[Math.floor(times.length / 2)] ?? 0),
    p99Ms: Math.round(times[Math.floor(times.length * 0.99)] ?? 0),
    p999Ms: Math.round(times[Math.floor(times.length * 0.999)] ?? 0),
    nodeUs: costs.cpuUs / polls.length,
    gcUs: Number.NaN,
    redisUs: Number.NaN,
    commands: costs.commands / polls.length,
    connections: Number.NaN,
    rssMb: costs.rssMb,
    errors: costs.errors,
    responsesPerCpuS: (polls.length / costs.cpuUs) * 1e6,
    staleness,
    backward,
  }
}

/**
 * The service's own count, which excludes the workers' commands. For other targets Redis cannot separate the
 * two, so the count is NaN.
 */
async function commandsOf(target: Target): Promise<number> {
  if (target.name !== 'ours') return Number.NaN
  const stats = (await (await fetch(`${target.url}/stats`)).json()) as {
    commandsSent: Record<string, number>
  }
  return Object.values(stats.commandsSent).reduce((sum, sent) => sum + sent, 0)
}

function medianRound(rounds: Round[]): Round {
  const middle = median(rounds.map(({ nodeUs }) => nodeUs))
  const round = rounds.find(({ nodeUs }) => nodeUs === middle)!
  const sum = (key: 'errors' | 'backward') => rounds.reduce((total, one) => total + one[key], 0)
  return { ...round, errors: sum('errors'), backward: sum('backward') }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
