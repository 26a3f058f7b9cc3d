/** Jobs as no BullMQ writes them: what does not fit is null and named, and the jobs beside them are read as ever. */
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const base = `${app.prefix}:q:`
  const queue = new Queue('q', { connection: client, prefix: app.prefix, skipMetasUpdate: true })
  const get = (url: string, headers: Record<string, string> = {}) => app.http.inject({ url, headers })
  /** Stores a healthy waiting job, then overwrites fields of it. */
  const store = async (key: string, fields: Record<string, string>) => {
    await queue.add('n', { i: 1 }, { jobId: key })
    if (Object.keys(fields).length > 0) await client.hset(base + key, fields)
  }
  return { app, base, queue, get, store }
}

const NESTED = '['.repeat(200_000)
const NESTED_JSON = NESTED + ']'.repeat(200_000)

/** What is stored, the fields that the job names as malformed, and how these fields are shown. */
const rows: [stored: Record<string, string>, malformed: string[], shown: Record<string, unknown>][] = [
  [{ timestamp: 'yesterday' }, ['createdAt'], { createdAt: null }],
  [{ timestamp: '' }, ['createdAt'], { createdAt: null }],
  [{ timestamp: '1e300' }, ['createdAt'], { createdAt: null }],
  [{ timestamp: '8640000000000001' }, ['createdAt'], { createdAt: null }],
  [{ timestamp: '9'.repeat(5_000) }, ['createdAt'], { createdAt: null }],
  [{ processedOn: 'x', finishedOn: '-1e18' }, ['startedAt', 'finishedAt'], { startedAt: null, finishedAt: null }],
  [{ finishedOn: '1'.repeat(5_000) }, ['finishedAt'], { finishedAt: null }],
  [{ opts: '{"attempts":1.5}' }, ['attempts'], { attempts: null }],
  [{ opts: '{"attempts":"x"}' }, ['attempts'], { attempts: null }],
  [{ opts: '{"attempts":{"valueOf":1}}' }, ['attempts'], { attempts: null }],
  [{ opts: 'null' }, ['attempts'], { attempts: null }],
  [{ opts: '[]' }, ['attempts'], { attempts: null }],
  [{ opts: '7' }, ['attempts'], { attempts: null }],
  [{ opts: '{oops' }, ['attempts'], { attempts: null }],
  [{ opts: '' }, ['attempts'], { attempts: null }],
  [{ priority: '1.5', atm: 'NaN' }, ['priority', 'attemptsMade'], { priority: null, attemptsMade: null }],
  [{ priority: 'Infinity', atm: ' ' }, ['priority', 'attemptsMade'], { priority: null, attemptsMade: null }],
  [{ progress: '{oops' }, ['progress'], { progress: '{oops' }],
  [{ progress: '' }, ['progress'], { progress: '' }],
  [{ progress: NESTED_JSON }, ['progress'], { progress: NESTED_JSON }],
  [{ returnvalue: 'NaN' }, ['result'], { result: 'NaN' }],
  [{ returnvalue: '"\u0001"' }, ['result'], { result: '"\u0001"' }],
  [{ returnvalue: NESTED }, ['result'], { result: NESTED }],
  [{ data: "{'a':1}" }, ['data'], { data: "{'a':1}" }],
  [{ data: `${'x'.repeat(100_000)}` }, ['data'], { data: 'x'.repeat(100_000) }],
  [{ data: '{"a":1}\n\u0000' }, ['data'], { data: '{"a":1}\n\u0000' }],
  [{ failedReason: 'no', stacktrace: '[1]' }, ['stacktrace'], { error: { message: 'no', stacktrace: [] } }],
  [{ failedReason: 'no', stacktrace: '{' }, ['stacktrace'], { error: { message: 'no', stacktrace: [] } }],
  [{ failedReason: 'no', stacktrace: '"one"' }, ['stacktrace'], { error: { message: 'no', stacktrace: [] } }],
  [{ parentKey: 'nowhere' }, ['parent'], { parent: null }],
] // biome-ignore format: a table to read

t.test(
  'a malformed field is null or text and named, alone, by id, and in a page with healthy jobs',
  async (t) => {
    const { get, store } = await open(t, { CACHE_TTL_SHORT: '0' })
    for (const [i, [fields]] of rows.entries()) {
      await store(`m${i}`, fields)
      await store(`h${i}`, {})
    }
    const page = (await get('/jobs?queue=q&limit=200')).json().jobs as { id: string }[]
    t.equal(page.length, 2 * rows.length)
    const ids = rows.flatMap((_, i) => [`q:m${i}`, `q:h${i}`])
    const many = (await get(`/jobs?include=data&ids=${ids}`)).json().jobs
    for (const [i, [stored, malformed, shown]] of rows.entries()) {
      const what = JSON.stringify(stored).slice(0, 40)
      const alone = await get(`/jobs/q:m${i}?include=data`)
      t.equal(alone.statusCode, 200, what)
      const { data, ...plain } = alone.json()
      t.strictSame(plain.malformed, malformed, what)
      t.hasStrict({ data, ...plain }, shown, what)
      t.strictSame(many[2 * i], { ...plain, data }, what)
      if (!malformed.includes('data'))
        t.strictSame(
          page.find(({ id }) => id === `q:m${i}`),
          plain,
          what,
        )
      for (const healthy of [many[2 * i + 1], page.find(({ id }) => id === `q:h${i}`)]) {
        t.match(healthy, { state: 'waiting', attempts: 1, createdAt: /Z$/ })
        t.notOk('malformed' in healthy)
      }
    }
  },
)

t.test('a delay that no date can express is null, in a page and alone', async (t) => {
  const { get, queue, base } = await open(t)
  await queue.add('n', {}, { jobId: 'far', delay: 1e18 })
  await queue.add('n', {}, { jobId: 'near', delay: 60_000 })
  await queue.add('n', {}, { jobId: 'endless', delay: 60_000 })
  await client.zadd(`${base}delayed`, '+inf', 'endless')
  for (const id of ['far', 'endless']) {
    const alone = await get(`/jobs/q:${id}`)
    t.match(alone.json(), { state: 'delayed', delayedUntil: null, malformed: ['delayedUntil'] })
    t.match(alone.headers['retry-after'], /^\d+$/)
  }
  const page = await get('/jobs?queue=q&state=delayed')
  t.equal(page.statusCode, 200)
  t.equal(page.json().jobs.length, 3)
  t.match((await get('/jobs/q:near')).json(), { delayedUntil: /^20..-.*Z$/ })
})

t.test('a malformed time does not spoil Retry-After', async (t) => {
  const { get, store } = await open(t)
  await store('m', { timestamp: 'x' })
  await store('h', {})
  t.equal((await get('/jobs/q:m')).headers['retry-after'], '30')
  t.equal((await get('/jobs?ids=q:m,q:h')).headers['retry-after'], '1')
})

t.test('a key of another type in place of a job, its logs or its lock hurts only itself', async (t) => {
  const { get, store, base, queue } = await open(t)
  for (const key of ['a', 'b', 'c', 'd']) await store(key, {})
  await client.del(`${base}a`)
  await client.set(`${base}a`, 'text')
  await client.set(`${base}b:logs`, 'text')
  await client.hset(`${base}c:lock`, 'a', '1')
  const { jobs } = (await get('/jobs?ids=q:a,q:b,q:c,q:d')).json()
  t.match(jobs, [null, { id: 'q:b' }, { id: 'q:c', state: 'waiting' }, { id: 'q:d', state: 'waiting' }])
  const all = await Promise.all(['a', 'b', 'c', 'd'].map((key) => get(`/jobs/q:${key}?include=logs`)))
  t.same(
    all.map(({ statusCode }) => statusCode),
    [404, 200, 200, 200],
  )
  t.match(all[1]!.json(), { logs: null, malformed: ['logs'] })
  t.match(all[3]!.json(), { logs: [] })
  const page = (await get('/jobs?queue=q&state=waiting')).json()
  t.same(
    page.jobs.map(({ id }: { id: string }) => id),
    ['q:d', 'q:c', 'q:b'],
  )
  t.equal(await queue.getWaitingCount(), 4)
})

t.test('a hash with nothing but a timestamp is a job', async (t) => {
  const { get, base } = await open(t)
  await client.hset(`${base}bare`, 'timestamp', '1790000000000')
  await client.lpush(`${base}wait`, 'bare')
  const { body } = await get('/jobs/q:bare')
  t.match(JSON.parse(body), { name: '', progress: 0, attempts: 1, result: null, error: null })
  t.notOk(body.includes('malformed'))
  t.match((await get('/jobs?queue=q')).json().jobs, [{ id: 'q:bare' }])
})

t.test('empty data are {}, as for BullMQ’s workers', async (t) => {
  const { get, store } = await open(t)
  await store('empty', { data: '' })
  const { data, malformed } = (await get('/jobs/q:empty?include=data')).json()
  t.strictSame({ data, malformed }, { data: {}, malformed: undefined })
})

t.test('what BullMQ itself writes is never malformed', async (t) => {
  const { app, get, queue } = await open(t)
  const connection = { path: redis.socket, maxRetriesPerRequest: null }
  const values: unknown[] = [
    undefined,
    null,
    0,
    '',
    'text',
    { a: [1] },
    [],
    Number.NaN,
    new Date(0),
    'é\u2028',
  ]
  const worker = new Worker(
    'q',
    async (job) => {
      await job.updateProgress(50.5)
      if (job.name === 'fails') throw new Error('no\nway')
      return values[Number(job.name)]
    },
    { connection, prefix: app.prefix },
  )
  t.teardown(() => worker.close())
  await queue.addBulk(
    values.map((_, i) => ({
      name: `${i}`,
      data: values[i],
      opts: { jobId: `v${i}`, priority: i, attempts: i },
    })),
  )
  await queue.add('fails', {}, { jobId: 'fails', attempts: 2, backoff: 1 })
  const ids = [...values.map((_, i) => `q:v${i}`), 'q:fails']
  for (const id of ids) {
    const { statusCode, body } = await get(`/jobs/${id}?wait=10&include=data,logs`)
    t.equal(statusCode, 200)
    const job = JSON.parse(body)
    t.match(job, { id, state: /completed|failed/ })
    t.notOk('malformed' in job || 'omitted' in job, id)
  }
})

t.test('odd ids and encodings are not found, and never an error', async (t) => {
  const { get, store } = await open(t)
  await store('a', {})
  const ids = ['q:', ':', '::', 'q::', 'q:a%20', 'q:%00', 'q:%0a', 'q:%F0%9F%8E%89', 'q:%ff', 'q:meta', 'q:events', 'q:wait', '%', '%zz',
    'q:a:lock', 'q:a:logs', '..:a', 'q:..', `q:${'x'.repeat(4_097)}`, `${'x'.repeat(513)}:a`, 'Q:a', 'q:constructor', 'toString:a'] // biome-ignore format: a list
  for (const id of ids) {
    const { statusCode } = await get(`/jobs/${id}`)
    t.ok([404, 400].includes(statusCode), `${id.slice(0, 20)} is ${statusCode}`)
    const many = await get(`/jobs?ids=${id},q:a`)
    if (many.statusCode === 200) t.match(many.json().jobs.at(-1), { id: 'q:a' })
    else t.equal(many.statusCode, 400, id)
  }
})
