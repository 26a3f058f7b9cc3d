/** Taking the job of a scheduler never ends the scheduler: its next job is created, or the job is left to a worker that can. */
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually } from '../helpers/app.ts'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'
import { connectionTo, openWork, settle, take } from './client.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())
const connection = connectionTo(redis)

/** No cron pattern, so that only workers with this strategy know when the next job is due. */
const PATTERN = 'RRULE:FREQ=SECONDLY;INTERVAL=1'
const settings = {
  /** The first job is due at once, each further one after 100 ms. */
  repeatStrategy: (millis: number, { count }: { count?: number }) => (count ? millis + 100 : millis),
}

async function open(t: Test, QUEUE_PREFIX = uniquePrefix()) {
  const { app, queue } = await openWork(t, redis, { QUEUE_PREFIX, SECRET: 's'.repeat(32) })
  const producer = new Queue('q', { connection, prefix: app.prefix, settings })
  t.teardown(() => producer.close())
  const sent = async (label: string) =>
    ((await app.http.inject('/stats')).json().commandsSent[label] ?? 0) as number
  /** Resolves with the id of the scheduler's first job, which waits in the queue. */
  const upsert = async (id: string, opts: object = {}) => {
    const job = await producer.upsertJobScheduler(id, { pattern: PATTERN }, { name: 'n', opts })
    return job!.id!
  }
  const next = async (id: string) => client.zscore(`${app.prefix}:q:repeat`, id)
  const advice = async () =>
    (await app.http.inject('/health/redis')).json().recommendations.join(' ') as string
  return { app, queue, producer, sent, upsert, next, advice }
}

function startNative(t: Test, prefix: string, worked: string[]) {
  const work = async (job: { id?: string }) => {
    worked.push(job.id!)
  }
  const worker = new Worker('q', work, { connection, prefix, settings, drainDelay: 0.05 })
  t.teardown(() => worker.close())
  return worker
}

const idsOf = ({ body }: { body: { jobs: { id: string }[] } | undefined }) =>
  body?.jobs.map(({ id }) => id) ?? []

for (const [kind, opts] of Object.entries({ plain: {}, prioritized: { priority: 5 } })) {
  t.test(
    `the ${kind} job of a native strategy is left in front, and the jobs behind it are worked`,
    async (t) => {
      const { app, queue, sent, upsert, next } = await open(t)
      const id = await upsert('s', opts)
      const before = await next('s')
      for (const jobId of ['a', 'b', 'c']) await queue.add('n', {}, { ...opts, jobId })
      t.same(idsOf(await take(app)), ['q:a'])
      const [{ lease }] = (await take(app)).body.jobs
      t.same(idsOf(await settle(app, [{ lease, outcome: 'complete' }], { max: 5 })), ['q:c'])
      t.equal((await take(app, { wait: 1 })).status, 204)
      t.ok((await sent('takeLeases')) < 12, `${await sent('takeLeases')} takes`)
      t.equal(await (await queue.getJob(id))?.getState(), 'plain' === kind ? 'waiting' : 'prioritized')
      t.equal(await next('s'), before)
      const worked: string[] = []
      startNative(t, app.prefix, worked)
      await eventually(() => worked.length > 0)
      t.equal(worked[0], id)
    },
  )
}

t.test('a native worker beside HTTP workers of two replicas works every job of its strategy', async (t) => {
  const prefix = uniquePrefix()
  const replicas = [await open(t, prefix), await open(t, prefix)]
  const worked: string[] = []
  const worker = startNative(t, prefix, worked)
  let isOver = false
  const overHttp = replicas.map(async ({ app }) => {
    const ids: string[] = []
    while (!isOver) {
      const { body } = await take(app, { wait: 1 })
      for (const { id, lease } of body?.jobs ?? []) {
        ids.push(id)
        await settle(app, [{ lease, outcome: 'complete' }])
      }
    }
    return ids
  })
  await replicas[0]!.producer.upsertJobScheduler('s', { pattern: PATTERN }, { name: 'n' })
  await eventually(() => worked.length >= 5)
  await replicas[0]!.queue.add('n', {}, { jobId: 'other' })
  await eventually(async () => (await (await replicas[0]!.queue.getJob('other'))?.getState()) === 'completed')
  isOver = true
  await worker.close()
  const ids = (await Promise.all(overHttp)).flat()
  t.notOk(
    ids.some((id) => id.startsWith('q:repeat:')),
    ids.join(),
  )
  t.equal(new Set(worked).size, worked.length, 'each once')
  t.ok(await replicas[0]!.next('s'))
})

t.test('a failure that a child has caused is left to native workers as well', async (t) => {
  const { app, queue, upsert, next } = await open(t)
  const id = await upsert('s')
  const before = await next('s')
  await client.hset(`${app.prefix}:q:${id}`, 'defa', 'child failed')
  t.equal((await take(app)).status, 204)
  t.equal(await (await queue.getJob(id))?.getState(), 'waiting')
  startNative(t, app.prefix, [])
  await eventually(async () => (await (await queue.getJob(id))?.getState()) === 'failed')
  t.not(await next('s'), before)
})

t.test(
  'a job that its scheduler does not need is worked: the scheduler is removed, or has a later job',
  async (t) => {
    const { app, producer, upsert, next } = await open(t)
    const removed = await upsert('s')
    t.equal((await take(app)).status, 204, 'now it is skipped')
    const { app: other } = await open(t, app.prefix)
    await producer.removeJobScheduler('s')
    t.same(idsOf(await take(other)), [`q:${removed}`])
    const retried = await upsert('r')
    await client.zadd(`${app.prefix}:q:repeat`, Date.now() + 60_000, 'r')
    t.same(idsOf(await take(other)), [`q:${retried}`])
    t.ok(await next('r'))
  },
)

t.test('while Redis refuses the next job, the job is tried once a second, and then goes on', async (t) => {
  const { app, queue, sent } = await open(t)
  const job = await queue.upsertJobScheduler('s', { every: 3_600_000 }, { name: 'n' })
  const repeat = `${app.prefix}:q:repeat`
  await client.rename(repeat, `${app.prefix}:saved`)
  await client.set(repeat, 'x')
  const waiting = take(app, { wait: 10 })
  await eventually(async () => (await sent('scheduleNext')) >= 2, 4_000)
  t.ok((await sent('takeLeases')) < 12, `${await sent('takeLeases')} takes`)
  await client.rename(`${app.prefix}:saved`, repeat)
  t.same(idsOf(await waiting), [`q:${job!.id}`])
  t.equal((await queue.getDelayed()).length, 1, 'the scheduler goes on')
})

t.test(
  'a scheduler that has reached its limit or its end ends with its last job, without advice',
  async (t) => {
    const { app, queue, advice } = await open(t)
    await queue.upsertJobScheduler('limit', { every: 3_600_000, limit: 1 }, { name: 'n' })
    t.equal((await take(app)).status, 200)
    const soon = Date.now() + 150
    await queue.upsertJobScheduler('end', { every: 3_600_000, endDate: soon }, { name: 'n' })
    await eventually(() => Date.now() > soon)
    t.equal((await take(app)).status, 200)
    t.equal(await queue.getDelayedCount(), 0)
    t.notMatch(await advice(), /scheduler/)
  },
)

t.test(
  'a repeatable job of BullMQ 5 is worked and ends, as with a native worker, and health says so',
  async (t) => {
    const { app, queue, advice } = await open(t)
    const key = 'n::::0 * * * *'
    await queue.add('n', {}, { jobId: 'a' })
    await client.hset(`${app.prefix}:q:a`, 'rjk', key)
    await client.zadd(`${app.prefix}:q:repeat`, Date.now(), key)
    t.same(idsOf(await take(app)), ['q:a'])
    t.equal(await queue.getDelayedCount(), 0)
    t.match(await advice(), 'The scheduler n::::0 * * * * of q has ended: it is a repeatable job of BullMQ 5')
  },
)

t.test('a scheduler whose job is malformed ends, and health says so', async (t) => {
  const { app, queue, upsert, advice } = await open(t)
  const id = await upsert('s')
  await client.hset(`${app.prefix}:q:${id}`, 'opts', 'x')
  t.equal((await take(app)).status, 204)
  t.equal(await queue.getFailedCount(), 1)
  t.match(await advice(), 'The scheduler s of q has ended: its job was malformed.')
})
