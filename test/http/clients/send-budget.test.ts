/** Clients that read nothing cannot make the service hold more than MAX_BUFFERED_BYTES for long. */
import t, { type Test } from 'tap'
import type { ClientSocket } from '../../../src/http/clients/client-sockets.ts'
import { chooseVictims } from '../../../src/http/clients/send-budget.ts'
import { eventually, startApp } from '../../helpers/app.ts'
import { codesOf, openRawClient } from '../../helpers/raw-client.ts'
import { startRedis } from '../../helpers/redis.ts'

const MAX_BYTES = 32 * 1_048_576
/** Large enough that the kernel's buffers of one connection hold little of it. */
const JOB_BYTES = 8_000_000

const redis = await startRedis()
t.teardown(() => redis.stop())

async function start(t: Test) {
  const app = await startApp(redis, {
    MAX_BUFFERED_BYTES: `${MAX_BYTES}`,
    BODY_LIMIT: '10000000',
    WRITE_TIMEOUT: '60000',
    CACHE_MAX_BYTES: '67108864',
  })
  t.teardown(() => app.http.close())
  const stored = await app.http.inject({
    ...{ method: 'POST', url: '/jobs', headers: { 'content-type': 'application/json' } },
    payload: JSON.stringify({ queue: 'q', name: 'n', data: 'x'.repeat(JOB_BYTES), opts: { jobId: 'large' } }),
  })
  t.equal(stored.statusCode, 201)
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.http.server.address() as { port: number }
  const connections = async () => (await app.http.inject('/stats')).json().connections
  return { app, connections, client: () => openRawClient(t, port) }
}

const LARGE = { path: '/jobs/q:large?include=data' }

t.test('forty clients that read nothing are refused or disconnected; one that reads is served', async (t) => {
  const { app, connections, client } = await start(t)
  const startedAt = process.memoryUsage().rss
  let peak = 0
  const stuck = await Promise.all(Array.from({ length: 40 }, client))
  const sampling = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss)
  }, 20)
  t.teardown(() => clearInterval(sampling))
  for (const one of stuck) {
    one.socket.pause()
    one.send(LARGE)
  }
  await eventually(async () => (await connections()).refusedAnswers > 0)
  t.ok((await connections()).bufferedBytes <= MAX_BYTES)
  const small = await app.http.inject('/jobs/q:large')
  t.equal(small.statusCode, 200, 'small answers are served meanwhile')
  // The clients that take nothing make way for one that does.
  const reader = await client()
  await eventually(async () => {
    if (reader.responses().length > 0 && codesOf(reader.responses().slice(-1)).length === 0) return true
    const before = reader.responses().length
    reader.send(LARGE)
    await eventually(() => reader.responses().length > before)
    return false
  }, 20_000)
  const last = reader.responses().at(-1)!
  t.equal(last.status, 200)
  t.ok(last.body.length > JOB_BYTES)
  t.ok((await connections()).disconnected.buffered > 0)
  t.ok(
    peak - startedAt < 300 * 1_048_576,
    `${Math.round((peak - startedAt) / 1_048_576)} MB more at the peak`,
  )
})

t.test('a refused answer is a problem with Retry-After, and without the tag of the job', async (t) => {
  const { client } = await start(t)
  const all = await Promise.all(Array.from({ length: 12 }, client))
  for (const one of all.slice(0, -1)) one.socket.pause()
  for (const one of all) one.send(LARGE)
  const last = all.at(-1)!
  await eventually(() => last.responses().length === 1)
  const [response] = last.responses()
  t.match(response, { status: 503, headers: { 'retry-after': '1' }, body: /"code":"OVERLOADED"/ })
  t.equal(response!.headers['etag'], undefined)
  t.equal(response!.headers['content-type'], 'application/problem+json; charset=utf-8')
})

t.test(
  'clients that are disconnected: slow ones first, of these the ones with most bytes, and no more than needed',
  async (t) => {
    const client = (name: string, unsentBytes: number, sinceMs?: number) =>
      ({ name, unsentBytes, progress: { sinceMs } }) as unknown as ClientSocket
    const clients = [
      client('fast and large', 900, 9_900),
      client('slow and small', 100, 1_000),
      client('slow and large', 500, 1_000),
      client('idle', 0),
      client('fresh', 200),
    ]
    const names = (excess: number, slowOnly: boolean) =>
      chooseVictims(clients, excess, 10_000, slowOnly).map((one) => (one as unknown as { name: string }).name)
    t.same(names(400, true), ['slow and large'])
    t.same(names(501, true), ['slow and large', 'slow and small'])
    t.same(names(5_000, true), ['slow and large', 'slow and small'])
    t.same(names(601, false), ['slow and large', 'slow and small', 'fast and large'])
    t.same(names(0, false), [])
  },
)
