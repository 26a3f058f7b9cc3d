/** The state of a job, and how long it is kept, are what BullMQ says, on every route, also for a job in several collections. */
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis
const connection = { path: redis.socket, maxRetriesPerRequest: null }

async function open(t: Test) {
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  const base = `${app.prefix}:q:`
  const queue = new Queue('q', { connection: client, prefix: app.prefix, skipMetasUpdate: true })
  const get = async (url: string) => (await app.http.inject(url)).json()
  const openWorker = () => {
    const worker = new Worker('q', null, { connection, prefix: app.prefix, autorun: false })
    t.teardown(() => worker.close(true))
    return worker
  }
  return { app, base, queue, get, openWorker }
}

const SETS = ['completed', 'failed', 'delayed', 'prioritized', 'waiting-children']
const LISTS = ['active', 'wait', 'paused']
const COLLECTIONS = [...SETS, ...LISTS]

/** Every combination of collections but the empty one. */
const combinations = Array.from({ length: 2 ** COLLECTIONS.length - 1 }, (_, index) =>
  COLLECTIONS.filter((_, bit) => ((index + 1) >> bit) & 1),
)
const keyOf = (collections: readonly string[]) => `j.${collections.join('.')}`

interface Shown {
  id: string
  state: string
  delayedUntil: string | null
}

t.test('a job in any combination of collections has the state that BullMQ gives it', async (t) => {
  const { base, queue, get } = await open(t)
  const dueMs = Date.now() + 60_000
  const writes = client.pipeline()
  for (const collections of combinations) {
    const key = keyOf(collections)
    writes.hset(base + key, { name: 'n', data: '{}', opts: '{}', timestamp: 1_790_000_000_000 })
    for (const name of collections) {
      if (SETS.includes(name)) writes.zadd(base + name, dueMs * 0x1000, key)
      else writes.lpush(base + name, key)
    }
  }
  await writes.exec()
  const expected = new Map<string, string>()
  for (const collections of combinations) {
    const key = keyOf(collections)
    expected.set(`q:${key}`, await queue.getJobState(key))
  }
  const isRight = ({ id, state, delayedUntil }: Shown) =>
    state === expected.get(id) &&
    (state === 'delayed' ? Date.parse(delayedUntil!) === dueMs : delayedUntil === null)

  const ids = [...expected.keys()]
  const shown: Shown[] = []
  for (let at = 0; at < ids.length; at += 50)
    shown.push(...(await get(`/jobs?ids=${ids.slice(at, at + 50)}`)).jobs)
  t.equal(shown.length, combinations.length)
  t.strictSame(
    shown.filter((job) => !isRight(job)),
    [],
  )
  for (const name of [
    'completed',
    'failed',
    'delayed',
    'prioritized',
    'waiting-children',
    'active',
    'waiting',
  ]) {
    const listed: Shown[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page = await get(`/jobs?queue=q&state=${name}&limit=200${cursor && `&cursor=${cursor}`}`)
      listed.push(...page.jobs)
      cursor = page.cursor
    }
    const names = name === 'waiting' ? ['wait', 'paused'] : [name]
    const inLists = names.flatMap((one) => combinations.filter((all) => all.includes(one)))
    t.equal(listed.length, inLists.length, name)
    t.strictSame(
      listed.filter((job) => !isRight(job)),
      [],
      `listed as ${name}`,
    )
  }
})

t.test('the next job of a scheduler that is upserted while the job is worked is delayed', async (t) => {
  const { app, queue, get, openWorker } = await open(t)
  await queue.upsertJobScheduler('s', { every: 3_600_000 }, { name: 'n' })
  const worker = openWorker()
  const job = (await worker.getNextJob('token'))!
  const { id } = job
  const url = `/jobs/q:${id}`
  t.equal((await get(url)).state, 'active')
  // As when an upsert makes the job again that a worker has.
  const dueMs = Date.now() + 60_000
  await client.zadd(`${app.prefix}:q:delayed`, dueMs * 0x1000, id!)
  t.equal(await queue.getJobState(id!), 'delayed')
  const { state, delayedUntil } = await app.http
    .inject({ url, headers: { 'cache-control': 'no-cache' } })
    .then((answer) => answer.json() as Shown)
  t.equal(state, 'delayed')
  t.equal(delayedUntil, new Date(dueMs).toISOString())
  const waiting = get(`${url}?wait=20`)
  await eventually(async () => (await get('/stats')).waiting === 1)
  await job.moveToCompleted('done', 'token', false)
  t.equal(await queue.getJobState(id!), 'completed')
  t.match(await waiting, { state: 'completed', result: 'done', delayedUntil: null })
})

t.test('a short age of one job removes other completed jobs that are to be kept longer', async (t) => {
  const { app, base, get, openWorker } = await open(t)
  const worker = openWorker()
  const complete = async (key: string, age: number) => {
    const payload = { queue: 'q', name: 'n', opts: { jobId: key, removeOnComplete: { age } } }
    await app.http.inject({ method: 'POST', url: '/jobs', payload })
    await (await worker.getNextJob('token'))!.moveToCompleted(0, 'token', false)
  }
  await complete('long', 86_400)
  await client.zadd(`${base}completed`, Date.now() - 60_000, 'long')
  await complete('other', 86_400)
  t.equal((await get('/jobs/q:long')).state, 'completed', 'as old as its age allows')
  await complete('short', 30)
  t.equal(await client.exists(`${base}long`), 0)
  t.equal((await get('/jobs?ids=q:other,q:short')).jobs[0].state, 'completed')
})
