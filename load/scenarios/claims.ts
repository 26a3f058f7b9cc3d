/**
 * What the field reports say they gained or hoped for, each measured: `shared` and `naive` are their "before". Counts,
 * but for the one that speaks of time.
 */
import { type Load, measure, median, redisCost, startTarget, type Target } from '../bench.ts'
import { type Client, openClients } from '../clients.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'
import { add } from './read.ts'
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
const HELD = 50

export const claims: Scenario = {
  name: 'claims',
  shows:
    'What the field reports gained or hoped for, against a shared connection and against one for each request.',
  async run({ isQuick }) {
    const ours = await open('ours')
    const shared = await open('shared')
    const naive = await open('naive')
    const uncached = await open('ours', { HEALTH_TTL: '0' })
    try {
      const goals: Goal[] = []
      const less = (what: string, before: number, after: number, atLeast: number) => {
        const text = `${what}: ${round(after)} instead of ${round(before)}, less by %`
        goals.push({ what: text, measured: (1 - after / before) * 100, atLeast })
      }
      progress('claims · polls')
      less(
        `Redis requests of ${POLLED_JOBS * POLLS} polls`,
        await commandsOf(shared, () => poll(shared)),
        await commandsOf(ours, () => poll(ours)),
        90,
      )
      progress('claims · jobs')
      less('Redis requests per job, 50 at once', await perJob(shared), await perJob(ours), 50)
      progress('claims · time')
      less('ms of a status in memory (median)', await millisecondsOf(naive), await millisecondsOf(ours), 80)
      progress('claims · health')
      less(
        `Redis requests of ${PROBES} health checks`,
        await commandsOf(uncached, () => probe(uncached)),
        await commandsOf(ours, () => probe(ours)),
        75,
      )
      progress('claims · connections')
      less(`connections while ${HELD} enqueue`, await connectionsOf(naive), await connectionsOf(ours), 60)
      progress('claims · copies')
      less(`jobs stored of ${JOBS} that are sent ${COPIES} times`, JOBS * COPIES, await copiesOf(ours), 80)
      progress('claims · a day')
      const day = await commandsOfADay(ours, isQuick ? 2 : 6)
      goals.push({
        what: 'Redis requests of a day on which somebody polls all the time',
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
  // The look itself is one.
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

/** As browsers do: each asks again and again for its job, which changes no more often than jobs do. */
async function poll(subject: Subject): Promise<void> {
  await add(subject.redis, POLLED_JOBS)
  await withClients(subject, POLLED_JOBS, (clients) =>
    Promise.all(
      clients.map(async (client, i) => {
        for (let n = 0; n < POLLS; n++) await client.get(`/jobs/load:job-${i}`)
      }),
    ),
  )
}

async function perJob({ target, redis }: Subject): Promise<number> {
  return (await measure(target, redis.client, { ...post(job), connections: 50, amount: JOBS, sampleInt: 50 }))
    .commands
}

async function millisecondsOf(subject: Subject): Promise<number> {
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

async function probe({ target }: Subject): Promise<void> {
  for (let n = 0; n < PROBES; n++) await (await fetch(`${target.url}/health`)).text()
}

/** The most that were open at any of the looks. */
async function connectionsOf({ target, redis }: Subject): Promise<number> {
  let most = 0
  let isOver = false
  const loaded = measure(target, undefined, {
    ...post(job),
    connections: HELD,
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

/** A client that repeats what it has sent, under the id that it chose. */
async function copiesOf({ target, redis }: Subject): Promise<number> {
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

/** What listening costs all day, and the looks of the report's own pace: a job a minute, asked for every two seconds. */
async function commandsOfADay(subject: Subject, seconds: number): Promise<number> {
  const listening = await withClients(subject, 1, async ([client]) =>
    commandsOf(subject, async () => {
      for (let n = 0; n < seconds / 2; n++) {
        await client!.get('/jobs/load:job-0')
        await new Promise((resolve) => setTimeout(resolve, 2_000))
      }
    }),
  )
  // Stored, active, progress, completed: each is a look, and storing it is one more.
  const jobsADay = 24 * 60
  return Math.round((listening / seconds) * 86_400 + jobsADay * 5)
}

function post(body: object): Load {
  return { path: '/jobs', method: 'POST', headers: json, body: JSON.stringify(body) }
}

function round(value: number): string {
  return (value >= 10 ? Math.round(value) : Math.round(value * 100) / 100).toLocaleString('en')
}
