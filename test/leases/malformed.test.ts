/** A malformed job fails alone: 20 jobs of which one is damaged, taken and settled by an HTTP worker. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { connectionTo, post, settle } from './client.ts'
import { type Damage, damages } from './malformed-jobs.ts'

const redis = await startRedis()
const { client } = redis
const app = await startApp(redis)
const { prefix } = app
t.teardown(async () => {
  await app.http.close()
  await redis.stop()
})

const BAD = 'j7'
const ids = Array.from({ length: 20 }, (_, index) => `j${index}`)
const good = ids.filter((id) => id !== BAD)
type Leased = { id: string; lease: string; name: unknown; data: unknown }

let queues = 0
/** A queue with 20 jobs. */
async function openQueue(t: Test, opts: object = {}): Promise<Queue> {
  const queue = new Queue(`q${++queues}`, { connection: connectionTo(redis), prefix })
  t.teardown(() => queue.close())
  await queue.addBulk(ids.map((jobId) => ({ name: 'n', data: { jobId }, opts: { jobId, ...opts } })))
  return queue
}

const take = (queue: Queue, body: object) => post(app, `/queues/${queue.name}/leases`, body)
const keyOf = ({ name }: Queue, job: string) => `${prefix}:${name}:${job}`
const keysOf = (jobs: Leased[]) => jobs.map(({ id }) => id.slice(id.indexOf(':') + 1)).sort()
const malformedCount = async () => (await app.http.inject('/stats')).json().malformedJobs as number

/** Takes as a worker does until there is nothing, and completes what it got. */
async function workAll(queue: Queue): Promise<Leased[]> {
  const worked: Leased[] = []
  for (;;) {
    const { status, body } = await take(queue, { max: 5 })
    if (status !== 200) return worked
    worked.push(...body.jobs)
    await settle(
      app,
      body.jobs.map(({ lease }: Leased) => ({ lease, outcome: 'complete' })),
    )
  }
}

async function expectFate(t: Test, { fate, reason }: Damage, queue: Queue) {
  const key = keyOf(queue, BAD)
  t.same(await client.lrange(keyOf(queue, 'active'), 0, -1), [], 'no job stays active')
  t.equal(await client.exists(`${key}:lock`), 0, 'nor locked')
  t.equal(await client.zcard(keyOf(queue, 'completed')), fate === 'worked' ? 20 : 19)
  if (fate === 'failed') {
    t.match(await client.hget(key, 'failedReason'), reason)
    t.ok(await client.zscore(keyOf(queue, 'failed'), BAD))
  }
  if (fate === 'removed') t.ok(await client.exists(key), 'its key is left for an operator')
  if (fate === 'worked') return
  const events = await client.xrange(keyOf(queue, 'events'), '-', '+')
  const failed = events.filter(([, fields]) => fields.includes('failed') && fields.includes(BAD))
  t.equal(failed.length, 1, 'its failure is announced')
}

for (const damage of damages) {
  const expected = damage.fate === 'worked' ? ids.toSorted() : good.toSorted()

  t.test(`${damage.name}: the other 19 jobs are done, and it is ${damage.fate}`, async (t) => {
    const queue = await openQueue(t)
    const before = await malformedCount()
    await damage.apply(client, keyOf(queue, BAD))
    const began = performance.now()
    t.same(keysOf(await workAll(queue)), expected, 'each of them once')
    t.ok(performance.now() - began < 2_000, `${Math.round(performance.now() - began)} ms`)
    await expectFate(t, damage, queue)
    const isMalformed = damage.fate !== 'worked' && !damage.name.startsWith('defa')
    t.equal((await malformedCount()) - before, isMalformed ? 1 : 0)
  })

  t.test(`${damage.name}, delayed: the other jobs that are due are promoted and done`, async (t) => {
    const queue = await openQueue(t, { delay: 1, priority: 5 })
    await damage.apply(client, keyOf(queue, BAD))
    await new Promise((resolve) => setTimeout(resolve, 5))
    t.same(keysOf(await workAll(queue)), expected)
    t.equal(await client.zcard(keyOf(queue, 'delayed')), 0)
    await expectFate(t, damage, queue)
  })

  t.test(`${damage.name}, while it is leased: those settled with it are done`, async (t) => {
    const queue = await openQueue(t, { removeOnFail: 100 })
    const { body } = await take(queue, { max: 20 })
    await damage.apply(client, keyOf(queue, BAD))
    const extended = await post(app, '/leases/extend', {
      items: body.jobs.map(({ lease }: Leased) => ({ lease, progress: 5, log: 'x' })),
    })
    const isGone = damage.name === 'no hash' || damage.fate === 'removed'
    const doneOf = ({ results }: { results: { status: number }[] }) =>
      results.filter(({ status }) => status === 200).length
    t.equal(doneOf(extended.body), isGone ? 19 : 20)
    const { body: settled } = await settle(
      app,
      body.jobs.map(({ id, lease }: Leased) => ({ lease, outcome: id.endsWith(BAD) ? 'fail' : 'complete' })),
    )
    t.equal(doneOf(settled), isGone ? 19 : 20)
    t.equal(await client.zcard(keyOf(queue, 'completed')), 19)
  })
}

t.test('data that are not JSON reach the worker as a JSON string, whatever their size', async (t) => {
  for (const data of ['{oops', 'x'.repeat(200_000), '"\u0000', `{"a":${'['.repeat(50_000)}`]) {
    const queue = await openQueue(t)
    await client.hset(keyOf(queue, 'j0'), 'data', data)
    const { status, body } = await take(queue, { max: 20 })
    t.equal(status, 200)
    t.equal(body.jobs.length, 20)
    t.equal(body.jobs[0].data, data)
  }
})

t.test('a worker that waits gets the job behind a thousand malformed ones', async (t) => {
  const queue = await openQueue(t)
  await queue.obliterate({ force: true })
  const bad = Array.from({ length: 1_000 }, (_, index) => `bad${index}`)
  await queue.addBulk([...bad, 'good'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  for (const id of bad) await client.hset(keyOf(queue, id), 'opts', 'null')
  const began = performance.now()
  const { body } = await take(queue, { wait: 20, max: 10 })
  t.same(keysOf(body.jobs), ['good'])
  t.ok(performance.now() - began < 5_000, `${Math.round(performance.now() - began)} ms`)
  t.equal(await client.zcard(keyOf(queue, 'failed')), 1_000)
})
