/**
 * Measures each gain that the field reports claim or hope for; `shared` and `naive` are their "before". All
 * figures are counts except one, which is a time.
 */
import { type Load, measure, median, redisCost, startTarget, type Target } from '../bench.ts'
import { type Client, openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { addWaitingJobs } from './read.ts'
import { type Goal, job, json, type Scenario } from './scenario.ts'

interface Subject {
  target: Target
  redis: PrivateRedis
}

const POLLED_JOBS = 20
const POLLS = 100
const JOBS = 1_000
const COPIES = 5
const PROBES = 40
const ENQUEUERS = 50

export const claims: Scenario = {
  name: 'claims',
  shows:
    'The gains that the field reports claim or hope for, compared with one shared connection and with one connection per request.',
  async run({ isQuick }) {
    const ours = await open('ours')
    const shared = await open('shared')
    const naive = await open('naive')
    const uncached = await open('ours', { HEALTH_TTL: '0' })
    try {
      const goals: Goal[] = []
      const addReduction = (what: string, before: number, after: number, atLeast: number) => {
        const text = `${what}: ${round(after)} instead of ${round(before)}, reduction in %`
        goals.push({ what: text, measured: (1 - after / before) * 100, atLeast })
      }
      progress('claims · polls')
      addReduction(
        `Redis requests of ${POLLED_JOBS * POLLS} polls`,
        await commandsOf(shared, () => poll(shared)),
        await commandsOf(ours, () => poll(ours)),
        90,
      )
      progress('claims · jobs')
      addReduction(
        'Redis requests per job, 50 at once',
        await commandsPerJob(shared),
        await commandsPerJob(ours),
        50,
      )
      progress('claims · time')
      addReduction(
        'ms to read a cached status (median)',
        await medianReadMs(naive),
        await medianReadMs(ours),
        80,
      )
      progress('claims · health')
      addReduction(
        `Redis requests of ${PROBES} health checks`,
        await commandsOf(uncached, () => checkHealth(uncached)),
        await commandsOf(ours, () => checkHealth(ours)),
        75,
      )
      progress('claims · connections')
      addReduction(
        `Redis connections while ${ENQUEUERS} clients enqueue`,
        await peakConnections(naive),
        await peakConnections(ours),
        60,
      )
      progress('claims · copies')
      addReduction(
        `jobs stored when ${JOBS} jobs are each sent ${COPIES} times`,
        JOBS * COPIES,
        await countStoredCopies(ours),
        80,
      )
      progress('claims · a day')
      const day = await commandsOfADay(ours, isQuick ? 2 : 6)
      goals.push({
        what: 'Redis requests in a day of continuous polling',
        measured: day,
        atMost: 100_000,
      })
      return { rows: [], goals }
    } finally {
      for (const { target, redis } of [ours, shared, naive, uncached]) {
        await target.stop()
        await redis.stop()
      }
    }
  },
}

async function open(name: string, env: Record<string, string> = {}): Promise<Subject> {
  const redis = await startRedis()
  const target = await startTarget(name, { REDIS_SOCKET: redis.socket, ...env })
  return { target, redis }
}

async function commandsOf({ redis }: Subject, work: () => Promise<unknown>): Promise<number> {
  const before = await redisCost(redis.client)
  await work()
  // The measurement itself is one command.
  return (await redisCost(redis.client)).commands - before.commands - 1
}

async function withClients<T>(
  { target }: Subject,
  count: number,
  work: (clients: Client[]) => Promise<T>,
): Promise<T> {
  const clients = await openClients(target.url, count, '/jobs/load:none')
  try {
    return await work(clients)
  } finally {
    for (const client of clients) client.close()
  }
}

/** Each client polls its own job, as browsers do. */
async function poll(subject: Subject): Promise<void> {
  await addWaitingJobs(subject.redis, POLLED_JOBS)
  await withClients(subject, POLLED_JOBS, (clients) =>
    Promise.all(
      clients.map(async (client, i) => {
        for (let n = 0; n < POLLS; n++) await client.get(`/jobs/load:job-${i}`)
      }),
    ),
  )
}

async function commandsPerJob({ target, redis }: Subject): Promise<number> {
  return (await measure(target, redis.client, { ...post(job), connections: 50, amount: JOBS, sampleInt: 50 }))
    .commands
}

async function medianReadMs(subject: Subject): Promise<number> {
  return withClients(subject, 1, async ([client]) => {
    const times: number[] = []
    for (let n = 0; n < POLLS; n++) {
      const began = performance.now()
      await client!.get('/jobs/load:job-0')
      times.push(performance.now() - began)
    }
    return median(times)
  })
}

async function checkHealth({ target }: Subject): Promise<void> {
  for (let n = 0; n < PROBES; n++) await (await fetch(`${target.url}/health`)).text()
}

/** The largest number of connections in any sample. */
async function peakConnections({ target, redis }: Subject): Promise<number> {
  let most = 0
  let isOver = false
  const loaded = measure(target, undefined, {
    ...post(job),
    connections: ENQUEUERS,
    amount: JOBS,
    sampleInt: 50,
  }).then(() => {
    isOver = true
  })
  while (!isOver) {
    const { connections } = await redisCost(redis.client)
    most = Math.max(most, connections - 1)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await loaded
  return most
}

/** A client that resends its jobs with the same ids. */
async function countStoredCopies({ target, redis }: Subject): Promise<number> {
  const jobs = Array.from({ length: JOBS }, (_, i) => ({
    ...job,
    queue: 'copies',
    opts: { jobId: `copy-${i}` },
  }))
  for (let copy = 0; copy < COPIES; copy++) {
    await fetch(`${target.url}/jobs/batch`, { method: 'POST', headers: json, body: JSON.stringify({ jobs }) })
  }
  return redis.client.llen('bull:copies:wait')
}

/** The commands of a day with the field report's load: a job a minute, polled every two seconds. */
async function commandsOfADay(subject: Subject, seconds: number): Promise<number> {
  const listening = await withClients(subject, 1, async ([client]) =>
    commandsOf(subject, async () => {
      for (let n = 0; n < seconds / 2; n++) {
        await client!.get('/jobs/load:job-0')
        await new Promise((resolve) => setTimeout(resolve, 2_000))
      }
    }),
  )
  // Each of stored, active, progress and completed costs a read, and storing the job is one more command.
  const jobsADay = 24 * 60
  return Math.round((listening / seconds) * 86_400 + jobsADay * 5)
}

function post(body: object): Load {
  return { path: '/jobs', method: 'POST', headers: json, body: JSON.stringify(body) }
}

function round(value: number): string {
  return (value >= 10 ? Math.round(value) : Math.round(value * 100) / 100).toLocaleString('en')
}
