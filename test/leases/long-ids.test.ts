/** Producers in other languages store ids of any length. A job whose lease could not be sent back fails alone. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { createLeaseLimit } from '../../src/leases/lease-limit.ts'
import { createLeaseSealer } from '../../src/leases/lease-token.ts'
import { LEASE_MAX } from '../../src/leases/schemas.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { startReceiver } from '../webhooks/endpoint.ts'
import { connectionTo, post, settle } from './client.ts'

const redis = await startRedis()
const { client } = redis
const app = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
const { prefix } = app
t.teardown(async () => {
  await app.http.close()
  await redis.stop()
})

type Leased = { id: string; lease: string }

const settleable = ['a', 'b'.repeat(512), 'c'.repeat(48_000), '\u0001'.repeat(8_000), 'e'.repeat(49_000)]
const tooLong = ['f'.repeat(49_152), 'g'.repeat(200_000), '\u0001'.repeat(8_192), '\u{1f600}'.repeat(13_000)]

let queues = 0
/** A native producer adds a job of each id. The last is the first to be taken. */
async function openQueue(t: Test, ids: string[]): Promise<Queue> {
  const queue = new Queue(`q${++queues}`, { connection: connectionTo(redis), prefix })
  t.teardown(() => queue.close())
  await queue.addBulk(ids.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  return queue
}

const keyOf = ({ name }: Queue, job: string) => `${prefix}:${name}:${job}`
const idOf = ({ name }: Queue, key: string) => `${name}:${key}`
const malformedCount = async () => (await app.http.inject('/stats')).json().malformedJobs as number

async function expectFates(t: Test, queue: Queue) {
  t.same(await client.lrange(keyOf(queue, 'active'), 0, -1), [])
  t.equal(await client.zcard(keyOf(queue, 'completed')), settleable.length)
  t.equal(await client.zcard(keyOf(queue, 'failed')), tooLong.length)
  for (const id of tooLong)
    t.match(
      await client.hget(keyOf(queue, id), 'failedReason'),
      /^Malformed job: its id has \d+ characters, so the lease .* at most 65536 can be sent back$/,
    )
}

/** Interleaved, so that one take finds both. */
const ids = [...settleable, ...tooLong].toSorted((a, b) => (a.length % 7) - (b.length % 7))

t.test('every job that is handed out can be extended and settled; the others fail alone', async (t) => {
  const queue = await openQueue(t, ids)
  const before = await malformedCount()
  const taken: string[] = []
  for (;;) {
    const { status, body } = await post(app, `/queues/${queue.name}/leases`, { max: 3 })
    if (status !== 200) break
    for (const { id, lease } of body.jobs as Leased[]) {
      taken.push(id)
      t.equal((await post(app, '/leases/extend', { items: [{ lease }] })).status, 200)
      t.equal((await settle(app, [{ lease, outcome: 'complete' }])).status, 200)
    }
  }
  t.same(taken.toSorted(), settleable.map((key) => idOf(queue, key)).toSorted())
  await expectFates(t, queue)
  t.equal((await malformedCount()) - before, tooLong.length)
})

t.test('so it is when a request settles and takes the next, and when a worker waits', async (t) => {
  const queue = await openQueue(t, [...ids, 'last'])
  const first = (await post(app, `/queues/${queue.name}/leases`, { wait: 5 })).body.jobs as Leased[]
  let held = first
  const taken: string[] = []
  while (held.length > 0) {
    const [{ id, lease }] = held as [Leased]
    taken.push(id)
    const { status, body } = await settle(app, [{ lease, outcome: 'complete' }], { max: 1 })
    t.equal(status, 200)
    held = body.jobs
  }
  t.same(new Set(taken), new Set([...settleable, 'last'].map((key) => idOf(queue, key))))
  t.equal(await client.zcard(keyOf(queue, 'failed')), tooLong.length)
})

t.test('a webhook, which needs no lease, gets every job', async (t) => {
  const receiver = await startReceiver(t)
  const queue = await openQueue(t, ids)
  await app.http.inject({
    method: 'PUT',
    url: `/queues/${queue.name}/subscription`,
    headers: { 'content-type': 'application/json' },
    payload: JSON.stringify({ url: receiver.url }),
  })
  await eventually(async () => (await client.zcard(keyOf(queue, 'completed'))) === ids.length)
  t.equal(receiver.received.length, ids.length)
})

t.test(
  'an id of 4,096 characters is served by GET, however it is escaped; a longer one is not',
  async (t) => {
    const long = '%/?#'.repeat(1_024)
    const queue = await openQueue(t, [long, `${long}x`, 'é'.repeat(512)])
    const get = (key: string) => app.http.inject(`/jobs/${encodeURIComponent(idOf(queue, key))}`)
    for (const key of [long, 'é'.repeat(512)]) t.equal((await get(key)).json().id, idOf(queue, key))
    t.equal((await get(`${long}x`)).statusCode, 404)
  },
)

t.test('a list of long ids can be paged through, because its cursors fit into a request', async (t) => {
  const keys = Array.from({ length: 12 }, (_, index) => `${index}-`.padEnd(9_000, 'x'))
  const queue = await openQueue(t, keys)
  await queue.add('n', {}, { jobId: `delayed-${'y'.repeat(9_000)}`, delay: 60_000 })
  const found: string[] = []
  for (let cursor: string | null = ''; cursor !== null; ) {
    const from = cursor === '' ? '' : `&cursor=${cursor}`
    const response = await app.http.inject(`/jobs?queue=${queue.name}&limit=1${from}`)
    t.equal(response.statusCode, 200, response.body.slice(0, 300))
    const page = response.json() as { jobs: { id: string }[]; cursor: string | null }
    found.push(...page.jobs.map(({ id }) => id))
    cursor = page.cursor
    t.ok(found.length <= 13)
  }
  t.equal(new Set(found).size, 13)
  t.equal(found.length, 13)
})

t.test('an answer with many long ids stays within MAX_ANSWER_BYTES', async (t) => {
  const queue = await openQueue(
    t,
    Array.from({ length: 100 }, (_, index) => `${index}-`.padEnd(48_000, 'x')),
  )
  const { body } = await post(app, `/queues/${queue.name}/leases`, { max: 100 })
  const bytes = JSON.stringify(body).length
  t.ok(
    body.jobs.length > 5 && bytes <= app.config.MAX_ANSWER_BYTES,
    `${body.jobs.length} jobs, ${bytes} bytes`,
  )
  await settle(
    app,
    (body.jobs as Leased[]).slice(0, 1).map(({ lease }) => ({ lease, outcome: 'complete' })),
  )
})

t.test('the limit is exact, and a small BODY_LIMIT lowers it', async (t) => {
  const sealer = createLeaseSealer(['s'.repeat(32)])
  const lease = (length: number) => ({
    ...{ queue: 'q', key: 'k'.repeat(length), token: 't'.repeat(22), opts: '{}' },
    ...{ attemptsMade: 0, attemptsStarted: 1 },
  })
  for (const [bodyLimit, max] of [
    [1_048_576, LEASE_MAX],
    [10_000, 10_000 - 256],
  ] as const) {
    const why = createLeaseLimit(sealer, bodyLimit)
    // Base64 makes 4 characters of 3 bytes.
    const lengths = Array.from({ length: 500 }, (_, index) => Math.floor(max * 0.75) - 499 + index)
    const longest = lengths.findLast((length) => why(lease(length)) === undefined)!
    t.ok(sealer.seal(lease(longest)).length <= max)
    t.ok(sealer.seal(lease(longest + 1)).length > max)
  }
})
