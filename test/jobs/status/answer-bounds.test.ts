/** MAX_ANSWER_BYTES: no response with jobs, and no reply of Redis behind it, is larger, whatever is stored. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

const MAX = 131_072
/** What a response may take beyond MAX, for each job in it: its envelope and its short values. */
const ENVELOPE = 1_024

interface JobText {
  id: string
  data?: unknown
  result?: unknown
  error?: { message: string; stacktrace?: string[] } | null
  logs?: string[]
  omitted?: string[]
}

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, { MAX_ANSWER_BYTES: `${MAX}`, ...settings })
  t.teardown(() => app.http.close())
  const keyOf = (key: string, queue = 'q') => `${app.prefix}:${queue}:${key}`
  const queue = new Queue('q', { connection: client, prefix: app.prefix, skipMetasUpdate: true })
  /** Stores a finished job as BullMQ does. */
  const store = async (key: string, fields: Record<string, string>, name = 'q') => {
    const timestamp = 1_790_000_000_000
    await client.hset(keyOf(key, name), {
      name: 'n',
      opts: '{}',
      data: '{}',
      timestamp,
      finishedOn: timestamp + 1,
      ...fields,
    })
    await client.zadd(keyOf('completed', name), timestamp + 1, key)
  }
  const storeMany = async (count: number, bytes: number, name = 'q') => {
    const keys = Array.from({ length: count }, (_, i) => `k${i}`)
    const fill = (key: string) => store(key, { returnvalue: JSON.stringify(key.padEnd(bytes, '.')) }, name)
    await Promise.all(keys.map(fill))
    return keys
  }
  const get = async (url: string, headers: Record<string, string> = {}) => {
    const answer = await app.http.inject({ url, headers })
    const text = answer.body
    return {
      status: answer.statusCode,
      headers: answer.headers,
      text,
      bytes: answer.rawPayload.length,
      answer,
    }
  }
  const jobs = async (url: string) => {
    const { answer, bytes, headers } = await get(url)
    t.equal(answer.statusCode, 200)
    const body = answer.json<{ jobs: (JobText | null)[]; cursor?: string | null }>()
    return { ...body, bytes, headers }
  }
  const job = async (url: string) => {
    const { answer, bytes, headers } = await get(url)
    t.equal(answer.statusCode, 200)
    return { ...answer.json<JobText>(), bytes, headers }
  }
  /** Bytes that Redis sends while `act` runs. */
  const sentDuring = async (act: () => Promise<unknown>) => {
    const sent = async () => Number(/total_net_output_bytes:(\d+)/.exec(await client.info('stats'))?.[1])
    const before = await sent()
    await act()
    return (await sent()) - before
  }
  const stats = async () => (await get('/stats')).answer.json()
  return { app, queue, keyOf, store, storeMany, get, jobs, job, sentDuring, stats }
}

const long = (bytes: number) => JSON.stringify('x'.repeat(bytes - 2))

t.test('an id that is asked for again is answered without its long fields', async (t) => {
  const { store, jobs } = await open(t)
  await store('a', { data: long(50_000), returnvalue: '{"sent":true}' })
  for (const round of ['read', 'cached']) {
    const { jobs: all, bytes } = await jobs(`/jobs?include=data&ids=${'q:a,'.repeat(199)}q:a`)
    t.equal(all.length, 200)
    t.equal((all[0]!.data as string).length, 49_998, round)
    t.notOk(all[0]!.omitted)
    for (const again of all.slice(1)) {
      t.match(again, { id: 'q:a', result: { sent: true }, omitted: ['data'] })
      t.notOk('data' in again!)
    }
    t.ok(bytes < 50_000 + 200 * ENVELOPE, `${bytes} bytes`)
  }
})

t.test('a short job that is asked for again is answered whole', async (t) => {
  const { store, jobs } = await open(t)
  await store('a', { data: '{"i":1}' })
  const { jobs: all } = await jobs('/jobs?include=data&ids=q:a,q:a')
  t.strictSame(all[1], all[0])
})

t.test('jobs that no longer fit lose their long fields, and each id has its entry in order', async (t) => {
  const { storeMany, jobs, job, sentDuring } = await open(t)
  const keys = await storeMany(200, 20_000)
  const url = `/jobs?ids=${keys.map((key) => `q:${key}`)}`
  const sent = await sentDuring(async () => {
    const { jobs: all, bytes } = await jobs(url)
    t.same(
      all.map((one) => one?.id),
      keys.map((key) => `q:${key}`),
    )
    const whole = all.filter((one) => one && !one.omitted)
    t.ok(whole.length >= 4 && whole.length <= 6, `${whole.length} are whole`)
    t.same(all.slice(0, whole.length), whole, 'the first ones')
    for (const one of all.slice(whole.length)) {
      t.strictSame(one!.omitted, ['result'])
      t.notOk('result' in one!)
    }
    t.ok(bytes < MAX + 200 * ENVELOPE, `${bytes} bytes`)
  })
  t.ok(sent < 3 * MAX + 200 * ENVELOPE, `Redis sent ${sent} bytes`)
  const alone = await job('/jobs/q:k150')
  t.equal((alone.result as string).length, 20_000, 'nothing that was cut is served to another request')
  const { jobs: later } = await jobs(`/jobs?ids=q:k150,q:k150`)
  t.equal((later[0]!.result as string).length, 20_000)
})

t.test('large jobs of many queues share one allowance', async (t) => {
  const { storeMany, jobs, sentDuring } = await open(t)
  const names = Array.from({ length: 40 }, (_, i) => `q${i}`)
  for (const name of names) await storeMany(1, 100_000, name)
  const sent = await sentDuring(async () => {
    const { jobs: all, bytes } = await jobs(`/jobs?ids=${names.map((name) => `${name}:k0`)}`)
    t.same(
      all.map((one) => one?.id),
      names.map((name) => `${name}:k0`),
    )
    t.ok(bytes < MAX + 40 * ENVELOPE, `${bytes} bytes`)
    t.equal(all.filter((one) => one && !one.omitted).length, 1)
  })
  t.ok(sent < 40 * 100_000 + 3 * MAX, `Redis sent ${sent} bytes: each job at most once`)
})

t.test(
  'a response with fields left out has another ETag, and the same one while nothing changes',
  async (t) => {
    const { storeMany, get, store } = await open(t)
    await storeMany(12, 20_000)
    const ids = Array.from({ length: 12 }, (_, i) => `q:k${i}`)
    const first = await get(`/jobs?ids=${ids}`)
    const again = await get(`/jobs?ids=${ids}`, { 'if-none-match': `${first.headers['etag']}` })
    t.equal(again.status, 304)
    const alone = await get('/jobs/q:k11')
    await store('big', { data: long(MAX + 10), returnvalue: '1' })
    const plain = await get('/jobs/q:big')
    const cut = await get('/jobs/q:big?include=data')
    t.match(cut.answer.json(), { omitted: ['data'] })
    t.not(cut.headers['etag'], plain.headers['etag'])
    t.equal((await get('/jobs/q:k11', { 'if-none-match': `${alone.headers['etag']}` })).status, 304)
    const reversed = await get(`/jobs?ids=q:k11,${ids.slice(0, 11)}`)
    t.not(reversed.headers['etag'], first.headers['etag'])
  },
)

t.test('a field that alone is too large is left out and named, never an error', async (t) => {
  const { store, job, sentDuring } = await open(t)
  const fields: Record<string, string> = {
    data: 'data',
    returnvalue: 'result',
    failedReason: 'error',
    stacktrace: 'stacktrace',
    progress: 'progress',
    name: 'name',
    deid: 'deduplicationId',
    parentKey: 'parent',
    opts: 'attempts',
  }
  for (const [stored, shown] of Object.entries(fields)) {
    const value = stored === 'stacktrace' ? JSON.stringify(['x'.repeat(3 * MAX)]) : long(3 * MAX)
    await store(stored, { failedReason: 'no', returnvalue: '{"sent":true}', [stored]: value })
    const sent = await sentDuring(async () => {
      const one = await job(`/jobs/q:${stored}?include=data`)
      t.strictSame(one.omitted, [shown], stored)
      if (shown === 'name' || shown === 'attempts') t.equal((one as Record<string, unknown>)[shown], null)
      else t.notOk(shown in one)
      t.ok(one.bytes < 2 * ENVELOPE)
      if (stored !== 'returnvalue') t.same(one.result, { sent: true })
    })
    t.ok(sent < 4 * ENVELOPE, `Redis sent ${sent} bytes`)
  }
})

t.test('values that grow as JSON are bounded as they are sent', async (t) => {
  const { store, job, jobs } = await open(t)
  const control = '\u0001'.repeat(60_000)
  await store('a', { failedReason: control, returnvalue: '1' })
  t.match(await job('/jobs/q:a'), { result: 1, omitted: ['error'] })
  await store('b', { returnvalue: control })
  t.match(await job('/jobs/q:b'), { omitted: ['result'], malformed: ['result'] })
  for (let i = 0; i < 5; i++) await store(`c${i}`, { failedReason: '\u0001'.repeat(15_000) }, 'page')
  const page = await jobs('/jobs?queue=page')
  t.equal(page.jobs.length, 5)
  t.ok(page.bytes < MAX + 5 * ENVELOPE, `${page.bytes} bytes`)
})

t.test(
  'a page ends early when the next job does not fit, and the pages together hold every job once',
  async (t) => {
    const { storeMany, jobs, sentDuring, store } = await open(t)
    const keys = await storeMany(30, 20_000)
    await store('huge', { returnvalue: long(2 * MAX) })
    const seen: string[] = []
    let cursor: string | null = null
    let pages = 0
    do {
      const sent = await sentDuring(async () => {
        const page = await jobs(`/jobs?queue=q&limit=200${cursor === null ? '' : `&cursor=${cursor}`}`)
        t.ok(page.jobs.length > 0)
        t.ok(page.bytes < MAX + page.jobs.length * ENVELOPE, `${page.bytes} bytes`)
        for (const one of page.jobs) {
          seen.push(one!.id.slice(2))
          if (one!.id === 'q:huge') t.strictSame(one!.omitted, ['result'])
          else t.equal((one!.result as string).length, 20_000)
        }
        cursor = page.cursor!
      })
      t.ok(sent < MAX + 8 * ENVELOPE, `Redis sent ${sent} bytes`)
      pages++
    } while (cursor !== null)
    t.same([...seen].sort(), [...keys, 'huge'].sort())
    t.ok(pages >= 5 && pages <= 8, `${pages} pages`)
  },
)

t.test('a page that ends between two states goes on with the next state', async (t) => {
  const { store, queue, jobs } = await open(t)
  const data = { text: 'x'.repeat(10) }
  for (let i = 0; i < 3; i++) await queue.add('n'.repeat(60_000), data, { jobId: `w${i}` })
  for (let i = 0; i < 3; i++) await store(`c${i}`, { returnvalue: long(60_000) })
  const seen: string[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await jobs(`/jobs?queue=q${cursor === undefined ? '' : `&cursor=${cursor}`}`)
    seen.push(...page.jobs.map((one) => one!.id))
    cursor = page.cursor ?? null
  }
  t.same(seen, ['q:w2', 'q:w1', 'q:w0', 'q:c2', 'q:c1', 'q:c0'])
})

t.test('of logs the newest lines that fit are returned, and Redis reads little more', async (t) => {
  const { store, keyOf, job, sentDuring } = await open(t)
  await store('a', {})
  const lines = Array.from({ length: 1_500 }, (_, i) => `${i} `.padEnd(2_000, '.'))
  await client.rpush(keyOf('a:logs'), ...lines)
  const sent = await sentDuring(async () => {
    const { logs, omitted, bytes } = await job('/jobs/q:a?include=logs')
    t.strictSame(omitted, ['logs'])
    t.ok(logs!.length > 55, `${logs!.length} lines`)
    t.strictSame(logs, lines.slice(-logs!.length), 'the newest, oldest first')
    t.ok(bytes < MAX + ENVELOPE)
  })
  t.ok(sent < MAX + 8 * ENVELOPE, `Redis sent ${sent} bytes`)
  await store('b', {})
  await client.rpush(keyOf('b:logs'), 'small', 'x'.repeat(2 * MAX))
  t.match(await job('/jobs/q:b?include=logs,data'), { logs: [], omitted: ['logs'], data: {} })
  await store('c', {})
  const short = Array.from({ length: 1_500 }, (_, i) => `${i}`)
  await client.rpush(keyOf('c:logs'), ...short)
  const whole = await job('/jobs/q:c?include=logs')
  t.strictSame(whole.logs, short.slice(-1_000), 'the newest thousand lines')
  t.notOk(whole.omitted)
})

t.test('large and small jobs that are read together are all answered whole', async (t) => {
  const { storeMany, job, stats, store } = await open(t, { CACHE_TTL_LONG: '0' })
  const keys = await storeMany(60, 50_000)
  for (let i = 0; i < 60; i++) await store(`s${i}`, { returnvalue: '1' })
  const all = await Promise.all(keys.flatMap((key, i) => [job(`/jobs/q:${key}`), job(`/jobs/q:s${i}`)]))
  for (const [i, one] of all.entries()) {
    t.notOk(one.omitted)
    t.equal(i % 2 === 0 ? (one.result as string).length : one.result, i % 2 === 0 ? 50_000 : 1)
  }
  const { reads } = await stats()
  t.equal(reads.bytesInUse, 0)
  t.ok(reads.large > 0)
})

t.test('large reads beyond the bound are refused at once, and small ones are not', async (t) => {
  const { store, get, stats } = await open(t, { READ_MAX_BYTES: `${MAX}`, READ_MAX_WAITING: '2' })
  await store('s', {})
  for (let i = 0; i < 8; i++) await store(`k${i}`, { returnvalue: long(100_000) }, `q${i}`)
  const [small, ...all] = await Promise.all([
    get('/jobs/q:s'),
    ...Array.from({ length: 8 }, (_, i) => get(`/jobs?queue=q${i}`)),
  ])
  t.equal(small!.status, 200)
  t.same(all.map(({ status }) => status).sort(), [200, 200, 200, 503, 503, 503, 503, 503])
  const refused = all.find(({ status }) => status === 503)!
  t.match(refused.answer.json(), { code: 'OVERLOADED', retryable: true })
  t.ok(Number(refused.headers['retry-after']) >= 1)
  t.match((await stats()).reads, { bytesInUse: 0, waiting: 0, maxWaiting: 2, refused: 5, maxBytes: MAX })
  t.equal((await get('/jobs?queue=q7')).status, 200)
})

t.test('the cache holds no more than its bytes, large jobs included', async (t) => {
  const { storeMany, job, stats } = await open(t, { CACHE_MAX_BYTES: '300000' })
  const keys = await storeMany(20, 60_000)
  for (const key of keys) await job(`/jobs/q:${key}`)
  const { cache } = await stats()
  t.ok(cache.bytes <= 300_000, `${cache.bytes} bytes`)
  t.ok(cache.totalEntries >= 1 && cache.totalEntries <= 4)
})

t.test('a queue and a job named __proto__ are read like any other', async (t) => {
  const { store, storeMany, jobs, job } = await open(t)
  await store('__proto__', { data: '{"__proto__":{"a":1}}', returnvalue: '{"__proto__":2}' }, '__proto__')
  await storeMany(1, 10)
  for (const round of ['read', 'cached']) {
    t.equal((await job('/jobs/__proto__:__proto__')).id, '__proto__:__proto__', round)
    const { jobs: all } = await jobs('/jobs?include=data&ids=__proto__:__proto__,q:k0,__proto__:constructor')
    t.same(
      all.map((one) => one?.id),
      ['__proto__:__proto__', 'q:k0', undefined],
    )
    t.equal(JSON.stringify(all[0]!.data), '{"__proto__":{"a":1}}')
  }
  const page = await jobs('/jobs?queue=__proto__')
  t.same(
    page.jobs.map((one) => one?.id),
    ['__proto__:__proto__'],
  )
})

t.test('a cursor without a bookmark starts its collection, and any other forgery is refused', async (t) => {
  const { storeMany, get, jobs } = await open(t)
  await storeMany(3, 10)
  const cursorOf = (...values: unknown[]) => Buffer.from(JSON.stringify(values)).toString('base64url')
  const page = await jobs(
    `/jobs?queue=q&state=completed&cursor=${cursorOf(1, 'q', 'completed', 'completed')}`,
  )
  t.equal(page.jobs.length, 3)
  for (const cursor of [
    cursorOf(1, 'other', 'completed', 'completed'),
    cursorOf(1, 'q', 'completed', 'meta'),
    cursorOf(1, 'q', 'completed', '../x:completed'),
    cursorOf(1, 'q', 'completed', 'completed', 'k0'),
    cursorOf(1, 'q', 'completed', 'completed', 'k0', 'nan'),
    cursorOf(2, 'q', 'completed', 'completed'),
  ]) {
    t.equal((await get(`/jobs?queue=q&state=completed&cursor=${cursor}`)).status, 400, cursor)
  }
})
