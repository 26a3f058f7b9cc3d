/** The data, progress and result of a job go out as the text that is stored, on every route, and whether cached or not. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { listen } from '../../helpers/sse.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
const lines = Array.from(
  { length: 3_000 },
  (_, i) => `{"sku":"é${i}","price":${i}.10,"id":19706705982919822${i}}`,
)

/** JSON that JSON.parse and JSON.stringify would change, or a client could not have sent. */
const texts = {
  'an integer of 64 bits': '{"id":1970670598291982290}',
  'a number beyond a double': '1e400',
  'minus zero': '-0',
  'a fraction with a zero': '[1.0,1E5,0.10]',
  'names that are numbers': '{"b":1,"10":2,"2":3,"a":4}',
  'a name that is there twice': '{"a":1,"a":2}',
  escapes: '"\\u00e9\\/\\u0041\\ud800 \\udc00\\ud83d\\ude00"',
  Unicode: '{"é":"😀\u2028\u007f"}',
  'names that no client may send': '{"__proto__":{"x":1},"constructor":{"prototype":2}}',
  'white space': ' {\n\t"a" : [ 1,\r\n 2 ]\n}\n',
  'a thousand levels': nested(1_000),
  'a long value': `{"lines":[${lines.join(',\n')}]}`,
  'a text just below the limit for bytes': `"${'x'.repeat(16_379)}é"`,
}

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const base = `${app.prefix}:q:`
  const queue = new Queue('q', { connection: client, prefix: app.prefix, skipMetasUpdate: true })
  const get = (url: string, headers: Record<string, string> = {}) => app.http.inject({ url, headers })
  /** Stores a finished job whose values are `text`. */
  let score = 1_790_000_000_000
  const store = async (key: string, text: string | Buffer) => {
    await queue.add('n', {}, { jobId: key })
    await client.lrem(`${base}wait`, 1, key)
    await client.zadd(`${base}completed`, score++, key)
    const finishedOn = '1790000000000'
    await client.hset(base + key, { data: text, progress: text, returnvalue: text, finishedOn })
  }
  return { app, base, queue, get, store }
}

t.test('a job, alone, by id and in a page, read and cached', async (t) => {
  const { get, store } = await open(t)
  for (const [index, [name, text]] of Object.entries(texts).entries()) {
    await store(`k${index}`, text)
    const url = `/jobs/q:k${index}`
    const read = await get(`${url}?include=data`)
    t.equal(read.statusCode, 200, name)
    t.match(read.headers['cache-status'], /fwd=miss/)
    t.ok(read.body.includes(`"progress":${text},"priority"`), `progress: ${name}`)
    t.ok(read.body.includes(`"result":${text},"error"`), `result: ${name}`)
    t.ok(read.body.endsWith(`,"data":${text}}`), `data: ${name}`)
    t.equal(read.headers['content-length'], `${read.rawPayload.length}`)
    const cached = await get(`${url}?include=data`)
    t.match(cached.headers['cache-status'], /hit/)
    t.ok(cached.rawPayload.equals(read.rawPayload), `cached: ${name}`)
    t.equal(cached.headers['etag'], read.headers['etag'])
    const waited = await get(`${url}?include=data&wait=1`, { 'cache-control': 'no-cache' })
    t.ok(waited.rawPayload.equals(read.rawPayload), `after a wait: ${name}`)
    const many = await get(`/jobs?ids=q:k${index},q:none&include=data`)
    t.equal(many.body, `{"jobs":[${read.body},null]}`, `by id: ${name}`)
    const page = await get('/jobs?queue=q&limit=1')
    const { body: plain } = await get(url)
    t.ok(page.body.startsWith(`{"jobs":[${plain}],"cursor":`), `in a page: ${name}`)
    t.notOk(/"malformed"|"omitted"/.test(plain))
  }
})

t.test(
  'text that is not JSON is a string, and bytes that are not UTF-8 are replaced, and both are named',
  async (t) => {
    const { get, store } = await open(t)
    const cases: [stored: string | Buffer, shown: string][] = [
      ['half', '"half"'],
      [nested(1_001), `"${nested(1_001)}"`],
      ['\ufeff{}', '"\ufeff{}"'],
      [`{"long":"${'é'.repeat(10_000)}`, JSON.stringify(`{"long":"${'é'.repeat(10_000)}`)],
      [Buffer.from('{"a":"\xff"}', 'latin1'), '{"a":"\ufffd"}'],
      [Buffer.from('half \xc3', 'latin1'), '"half \ufffd"'],
    ]
    for (const [index, [stored, shown]] of cases.entries()) {
      await store(`k${index}`, stored)
      const { body } = await get(`/jobs/q:k${index}?include=data`)
      const end = `"malformed":["progress","result","data"],"data":${shown}}`
      t.ok(body.endsWith(end), `${shown.slice(0, 20)}: ${body.slice(0, 500)}`)
      t.ok(body.includes(`"result":${shown},"error"`))
    }
  },
)

t.test('a job that is removed when it completes, for a client that waits', async (t) => {
  const { base, queue, get } = await open(t)
  const text = `{"id":1970670598291982290,"huge":1e400,"b":1,"2":-0,"__proto__":"\\ud800"}`
  for (const padding of ['', 'x'.repeat(20_000)]) {
    const data = `[${text},"${padding}"]`
    await queue.add('n', {}, { jobId: 'gone' })
    await client.hset(`${base}gone`, {
      data,
      progress: text,
      failedReason: 'once',
      stacktrace: '["\\u0061"]',
    })
    const waiting = get('/jobs/q:gone?include=data&wait=20')
    await eventually(async () => (await get('/stats')).json().waiting === 1)
    await eventually(async () => (await get('/jobs/q:gone?include=data')).statusCode === 200)
    await client
      .multi()
      .del(`${base}gone`)
      .lrem(`${base}wait`, 1, 'gone')
      .xadd(
        `${base}events`,
        '*',
        'event',
        'completed',
        'jobId',
        'gone',
        'returnvalue',
        data,
        'prev',
        'active',
      )
      .exec()
    const { body } = await waiting
    t.match(JSON.parse(body), { state: 'completed', attemptsMade: 1 })
    t.ok(body.includes(`"progress":${text},"priority"`), body.slice(0, 500))
    t.ok(
      body.includes(`"result":${data},"error":{"message":"once","stacktrace":["\\u0061"]}`),
      body.slice(0, 500),
    )
    t.ok(body.endsWith(`,"data":${data}}`), body.slice(0, 500))
  }
})

t.test('events: the snapshot, and those that a client has missed', async (t) => {
  const { app, base, get, store } = await open(t)
  const origin = await listen(app)
  const follow = async (key: string, headers: Record<string, string> = {}) =>
    (await fetch(`${origin}/jobs/q:${key}/events`, { headers })).text()
  const oneLine = (text: string) => text.replace(/[\r\n]/g, ' ')
  for (const [index, [name, text]] of Object.entries(texts).entries()) {
    const key = `k${index}`
    await store(key, text)
    const seen = await client.xadd(`${base}events`, '*', 'event', 'active', 'jobId', key)
    await client.xadd(`${base}events`, '*', 'event', 'progress', 'jobId', key, 'data', text)
    await client.xadd(`${base}events`, '*', 'event', 'completed', 'jobId', key, 'returnvalue', text)
    const { body: plain } = await get(`/jobs/q:${key}`, { 'cache-control': 'no-cache' })
    const snapshot = await follow(key)
    t.ok(snapshot.includes(`\ndata: ${oneLine(plain)}\n\n`), `snapshot: ${name}`)
    let replay = ''
    // A client that has not received the last event receives it when it reconnects.
    await eventually(async () => {
      replay = await follow(key, { 'last-event-id': seen! })
      return replay.includes('"state":"completed"')
    })
    t.ok(replay.includes(`,"progress":${oneLine(text)}}\n\n`), `progress: ${name}`)
    t.ok(replay.includes(`,"result":${oneLine(text)}}\n\n`), `result: ${name}`)
  }
})
