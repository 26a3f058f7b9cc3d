/**
 * The items of a settle and an extend: their values stay the text that was sent, for native BullMQ as well, each is refused alone,
 * and texts that are too long are cut.
 */
import { FlowProducer, QueueEvents, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { TEXT_MAX, truncateText } from '../../src/leases/truncate-text.ts'
import { eventually, type TestApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { connectionTo, openWork, settle, take } from './client.ts'

const redis = await startRedis()
const connection = connectionTo(redis)
t.teardown(() => redis.stop())
const open = (t: Test, settings?: Record<string, string>) => openWork(t, redis, settings)

/** Compact; JSON.parse and JSON.stringify would change each of its members. */
const EXACT =
  '{"id":1970670598291982290,"big":1e400,"zero":-0,"price":1.50,"9":1,"1":2,"twice":1,"twice":2,' +
  '"text":"\\u00e9\\/\\ud83d\\ude00 é😀\\n","one":[1E2,[],{}]}'
/** As a client may write it: with white space between all tokens, line ends among it. */
const spaced = (text: string) => text.replace(/(?<!\\)([,:[\]{}])/g, '\r\n\t $1 ')

async function send(app: TestApp, url: string, payload: string | Buffer) {
  const headers = { 'content-type': 'application/json' }
  const response = await app.http.inject({ method: 'POST', url, headers, payload })
  return { status: response.statusCode, text: response.body, body: response.json() }
}

async function leaseOf(app: TestApp): Promise<string> {
  const { body } = await take(app)
  return body.jobs[0].lease
}

async function eventsOf(app: TestApp, event: string): Promise<Record<string, string>[]> {
  const entries = await redis.client.xrange(`${app.prefix}:q:events`, '-', '+')
  const events = entries.map(([, list]) =>
    Object.fromEntries(list.flatMap((name, at) => (at % 2 === 0 ? [[name, list[at + 1]!]] : []))),
  )
  return events.filter((fields) => fields['event'] === event)
}

t.test(
  'a result stays the text that was sent: in Redis, in events, for native readers and in GET',
  async (t) => {
    const { app, queue } = await open(t)
    const events = new QueueEvents('q', { connection, prefix: app.prefix })
    t.teardown(() => events.close())
    await events.waitUntilReady()
    const completed = new Promise<unknown>((resolve) => events.once('completed', resolve))
    const job = await queue.add('n', {}, { jobId: 'a' })
    const finished = job.waitUntilFinished(events)
    const item = `{"lease":"${await leaseOf(app)}","result":${spaced(EXACT)},"outcome":"complete"}`
    t.equal((await send(app, '/leases/settle', `{"items":[${item}]}`)).status, 200)
    t.equal(await redis.client.hget(`${app.prefix}:q:a`, 'returnvalue'), EXACT)
    t.match(await eventsOf(app, 'completed'), [{ jobId: 'a', returnvalue: EXACT }])
    const value = JSON.parse(EXACT)
    t.same(await finished, value)
    t.match(await completed, { jobId: 'a', returnvalue: value })
    t.same((await queue.getJob('a'))?.returnvalue, value)
    const shown = await app.http.inject({ url: '/jobs/q:a' })
    t.ok(shown.body.includes(`:${EXACT}`), shown.body)
  },
)

t.test('the result of a child reaches its native parent as it was sent', async (t) => {
  const { app } = await open(t)
  const flow = new FlowProducer({ connection, prefix: app.prefix })
  t.teardown(() => flow.close())
  await flow.add({
    name: 'p',
    queueName: 'parents',
    opts: { jobId: 'p' },
    children: [{ name: 'c', queueName: 'q', opts: { jobId: 'c' } }],
  })
  const item = `{"lease":"${await leaseOf(app)}","outcome":"complete","result":${EXACT}}`
  t.equal((await send(app, '/leases/settle', `{"items":[${item}]}`)).status, 200)
  const processed = await redis.client.hgetall(`${app.prefix}:parents:p:processed`)
  t.same(processed, { [`${app.prefix}:q:c`]: EXACT })
  let values: unknown
  const work = async (job: { getChildrenValues(): Promise<unknown> }) => {
    values = await job.getChildrenValues()
  }
  const worker = new Worker('parents', work, { connection, prefix: app.prefix })
  t.teardown(() => worker.close())
  await eventually(() => values !== undefined)
  t.same(values, { [`${app.prefix}:q:c`]: JSON.parse(EXACT) })
})

t.test('progress stays the text that was sent, and native readers get it', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const lease = await leaseOf(app)
  for (const text of [EXACT, '0.10', '"half"', '[]', 'false']) {
    const item = `{"progress": ${spaced(text)} ,"lease":"${lease}"}`
    t.equal((await send(app, '/leases/extend', `{"items":[${item}]}`)).status, 200)
    t.equal(await redis.client.hget(`${app.prefix}:q:a`, 'progress'), text)
    t.same((await queue.getJob('a'))?.progress, JSON.parse(text))
  }
  t.match((await eventsOf(app, 'progress'))[0], { jobId: 'a', data: EXACT })
})

t.test('data are given to a worker as the bytes that are stored, also many and large ones', async (t) => {
  const { app, queue } = await open(t)
  const base = `${app.prefix}:q`
  const large = `[${Array.from({ length: 3_000 }, () => EXACT).join(' ,\n')}]`
  const stored: [text: string | Buffer, out: string][] = [
    [EXACT, EXACT],
    [` ${spaced(EXACT)} `, ` ${spaced(EXACT)} `],
    ['not JSON', '"not JSON"'],
    [Buffer.from([0x22, 0xff, 0x22]), '"\ufffd"'],
    ['"\u2028"', '"\u2028"'],
    [large, large],
    [EXACT, EXACT],
  ]
  const ids = stored.map((_, index) => `j${index}`)
  await queue.addBulk(ids.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  for (const [index, [text]] of stored.entries()) await redis.client.hset(`${base}:j${index}`, 'data', text)
  const all = await send(app, '/queues/q/leases', '{"max":100}')
  const data = all.text.split('"data":').slice(1)
  for (const [index, [, out]] of stored.entries()) t.ok(data[index]?.startsWith(`${out}}`), `job ${index}`)
  t.equal(all.body.jobs.length, stored.length, 'the whole answer is JSON')
  const leases = all.body.jobs.map(({ lease }: { lease: string }) => lease)
  await settle(
    app,
    leases.map((lease: string) => ({ lease, outcome: 'release' })),
  )
  const released = JSON.stringify({ items: [{ lease: leases[0], outcome: 'complete' }], next: { max: 1 } })
  const one = await send(app, '/leases/settle', released)
  t.ok(one.text.endsWith(`"data":${EXACT}}]}`), 'a job taken with a settle')
})

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
const BODY_LIMIT = 20_000

/** Members that make an item refused, with its code and the pointer below the item. */
const refusals: [members: string, code: string, pointer?: string][] = [
  [`"result":${nested(64)}`, 'JSON_TOO_DEEP', '/result'],
  ['"result":{"a":[1,{"__proto__":1}]}', 'FORBIDDEN_KEY', '/result/a/1/__proto__'],
  ['"result":{"constructor":{"prototype":1}}', 'FORBIDDEN_KEY', '/result'],
  ['"error":{"message":"m","__proto__":1}', 'FORBIDDEN_KEY', '/error/__proto__'],
  [`"result":"${'x'.repeat(BODY_LIMIT)}"`, 'PAYLOAD_TOO_LARGE'],
  ['"outcome":"done"', 'INVALID_ITEM', '/outcome'],
  ['"unrecoverable":1', 'INVALID_ITEM', '/unrecoverable'],
  ['"delay":-1', 'INVALID_ITEM', '/delay'],
  ['"error":{"message":1}', 'INVALID_ITEM', '/error/message'],
  ['"a/b":1', 'INVALID_ITEM', '/a~1b'],
]

t.test('a settlement that cannot be accepted is refused alone; the others are settled', async (t) => {
  const { app, queue } = await open(t, { BODY_LIMIT: `${BODY_LIMIT}` })
  const ids = refusals.flatMap((_, index) => [`good${index}`, `bad${index}`])
  await queue.addBulk(ids.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const { body } = await take(app, { max: 100 })
  const items = refusals.flatMap(([members], index) => {
    const [good, bad] = body.jobs.slice(2 * index).map(({ lease }: { lease: string }) => lease)
    return [
      `{"lease":"${good}","outcome":"complete","result":${nested(63)}}`,
      `{"lease":"${bad}","outcome":"complete",${members}}`,
    ]
  })
  const { status, body: settled } = await send(
    app,
    '/leases/settle',
    `{"items":[${items.join()},7,null,"x",[]]}`,
  )
  t.equal(status, 207)
  for (const [index, [, code, pointer]] of refusals.entries()) {
    const at = 2 * index
    t.match(settled.results[at], { index: at, status: 200, id: `q:good${index}` })
    const refused = settled.results[at + 1]
    t.match(refused, { index: at + 1, error: { code } })
    t.equal(refused.status, refused.error.status)
    const found = refused.error.errors?.map((field: { pointer: string }) => field.pointer)
    if (pointer === undefined) t.equal(found, undefined)
    else t.ok(found[0].startsWith(`/items/${at + 1}${pointer}`), `${found}`)
    t.equal(await (await queue.getJob(`good${index}`))?.getState(), 'completed')
    t.equal(await (await queue.getJob(`bad${index}`))?.getState(), 'active', code)
  }
  for (const result of settled.results.slice(-4))
    t.match(result, { status: 422, error: { code: 'INVALID_ITEM' } })
})

t.test('an extension that cannot be accepted is refused alone; the others are extended', async (t) => {
  const { app, queue } = await open(t, { BODY_LIMIT: `${BODY_LIMIT}` })
  await queue.addBulk(['a', 'b'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const { body } = await take(app, { max: 2 })
  const [a, b] = body.jobs.map(({ lease }: { lease: string }) => lease)
  const items = [
    `{"lease":"${a}","progress":${nested(64)}}`,
    `{"lease":"${a}","progress":{"__proto__":1}}`,
    `{"lease":"${a}","log":"${'x'.repeat(BODY_LIMIT)}"}`,
    `{"lease":"${a}","leaseMs":1}`,
    `{"lease":"${b}","progress":7}`,
  ]
  const { status, body: extended } = await send(app, '/leases/extend', `{"items":[${items.join()}]}`)
  t.equal(status, 207)
  t.match(
    extended.results.map(({ error }: { error?: { code: string } }) => error?.code),
    ['JSON_TOO_DEEP', 'FORBIDDEN_KEY', 'PAYLOAD_TOO_LARGE', 'INVALID_ITEM', undefined],
  )
  t.match(extended.results[1].error.errors, [{ pointer: '/items/1/progress/__proto__' }])
  t.match(extended.results[4], { status: 200, id: 'q:b', expiresAt: /^20/ })
  t.equal((await queue.getJob('a'))?.progress, 0)
  t.equal((await queue.getJob('b'))?.progress, 7)
})

t.test('only the envelope fails a request, and nothing is settled then', async (t) => {
  const { app, queue } = await open(t)
  await queue.add('n', {}, { jobId: 'a' })
  const item = `{"lease":"${await leaseOf(app)}","outcome":"complete"}`
  for (const body of [
    '{}',
    '{"items":[]}',
    '{"items":{}}',
    `{"items":[${item}],"x":1}`,
    `{"items":[${item}],"next":{"max":0}}`,
    `{"items":[${item}],"next":{"__proto__":1}}`,
    `{"items":[${item},]}`,
    `{"items":[${Array(101).fill(item).join()}]}`,
  ])
    t.equal((await send(app, '/leases/settle', body)).status, 400, body.slice(-40))
  t.equal(await (await queue.getJob('a'))?.getState(), 'active')
})

t.test('a settle and an extend may be as large as a batch, and each item as large as a body', async (t) => {
  const { app, queue } = await open(t, { BODY_LIMIT: '20000', BATCH_BODY_LIMIT: '60000' })
  await queue.addBulk(['a', 'b'].map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const { body } = await take(app, { max: 2 })
  const large = `"${'x'.repeat(19_000)}"`
  const leases = body.jobs.map(({ lease }: { lease: string }) => lease)
  const extend = leases.map((lease: string) => `{"lease":"${lease}","progress":${large}}`)
  t.equal((await send(app, '/leases/extend', `{"items":[${extend.join()}]}`)).status, 200)
  const items = leases.map((lease: string) => `{"lease":"${lease}","outcome":"complete","result":${large}}`)
  t.equal((await send(app, '/leases/settle', `{"items":[${items.join()}]}`)).status, 200)
  t.equal(await redis.client.hget(`${app.prefix}:q:b`, 'returnvalue'), large)
  const over = await send(app, '/leases/settle', `{"items":[${[...items, ...items].join()}]}`)
  t.equal(over.status, 413)
})

t.test(
  'messages, stacks and log lines that are too long are cut and marked, and never refused',
  async (t) => {
    const { app, queue } = await open(t)
    await queue.add('n', {}, { jobId: 'a' })
    const lease = await leaseOf(app)
    const long = 'é'.repeat(70_000)
    const extended = JSON.stringify({ items: [{ lease, log: `l${long}` }] })
    t.equal((await send(app, '/leases/extend', extended)).status, 200)
    const error = { message: `m${long}`, stack: `s${long}` }
    t.equal((await settle(app, [{ lease, outcome: 'fail', error }])).status, 200)
    const job = await queue.getJob('a')
    const cut = (first: string) => {
      const mark = '… [truncated from 70001 characters]'
      return `${first}${'é'.repeat(TEXT_MAX - mark.length - 1)}${mark}`
    }
    t.equal(job?.failedReason, cut('m'))
    t.same(job?.stacktrace, [cut('s')])
    t.same((await queue.getJobLogs('a')).logs, [cut('l')])
  },
)

t.test('a text is cut between characters, and only if it is too long', async (t) => {
  t.equal(truncateText('x'.repeat(TEXT_MAX)), 'x'.repeat(TEXT_MAX))
  for (const start of ['', 'x']) {
    const text = start + '😀'.repeat(TEXT_MAX / 2 + 1)
    const cut = truncateText(text)
    t.ok(cut.length <= TEXT_MAX && cut.length >= TEXT_MAX - 1)
    t.notMatch(cut, /[\ud800-\udfff]/u, 'no half of a pair')
    t.ok(cut.endsWith(`😀… [truncated from ${text.length} characters]`))
  }
})

t.test('a fail may carry the delay of the next attempt, and then needs no backoff of the job', async (t) => {
  const { app, queue } = await open(t)
  const own = { attempts: 3, backoff: { type: 'own' } }
  const known = { attempts: 3, backoff: { type: 'fixed', delay: 1 } }
  const add = (jobId: string, opts: object) => queue.add('n', {}, { jobId, ...opts })
  const fail = async (members: object) =>
    (await settle(app, [{ lease: await leaseOf(app), outcome: 'fail', ...members }])).body.results[0]
  await add('refused', own)
  t.match(await fail({}), { status: 422, error: { code: 'INVALID_OPTION', detail: /"fail" and a "delay"/ } })
  for (const [jobId, opts] of [
    ['own', own],
    ['known', known],
  ] as const) {
    await add(jobId, opts)
    t.match(await fail({ delay: 60_000 }), { status: 200 })
    const job = await queue.getJob(jobId)
    t.equal(await job?.getState(), 'delayed')
    t.match(job, { attemptsMade: 1, failedReason: 'failed' })
    t.ok(job!.delay === 60_000, `${job!.delay}`)
    await job?.remove()
  }
  await add('now', own)
  for (const attempt of [1, 2]) {
    t.match(await fail({ delay: 0 }), { status: 200 })
    t.equal(await (await queue.getJob('now'))?.getState(), 'waiting')
    t.equal((await queue.getJob('now'))?.attemptsMade, attempt)
  }
  t.match(await fail({ delay: 60_000 }), { status: 200 })
  t.equal(await (await queue.getJob('now'))?.getState(), 'failed', 'no attempt is left')
  t.equal((await queue.getJob('now'))?.attemptsMade, 3)
  await add('final', own)
  t.match(await fail({ delay: 60_000, unrecoverable: true }), { status: 200 })
  t.equal(await (await queue.getJob('final'))?.getState(), 'failed')
})
