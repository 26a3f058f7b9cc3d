/** Each kind of invalid input is a 4xx problem with a pointer and a sentence, stores nothing, and leaves the service working. */
import t from 'tap'
import { startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const app = await startApp(redis)
t.teardown(() => app.http.close())

interface Case {
  payload: string
  status: number
  code: string
  pointer?: string
  contentType?: string
}

const job = (fields: object) => JSON.stringify({ queue: 'q', name: 'n', ...fields })
const opts = (fields: object) => job({ opts: fields })
const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`

const cases: Record<string, Case> = {
  'an empty body': { payload: '', status: 400, code: 'EMPTY_BODY' },
  'invalid JSON': { payload: '{"name":', status: 400, code: 'INVALID_JSON' },
  'half a surrogate pair in the name': {
    payload: '{"name":"\\ud800"}',
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/name',
  },
  'half a surrogate pair in a deduplication id': {
    payload: '{"name":"n","opts":{"deduplication":{"id":"a\\udc00"}}}',
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/opts/deduplication/id',
  },
  'a body that is not an object': { payload: '[]', status: 400, code: 'INVALID_REQUEST', pointer: '' },
  'a wrong content type': {
    payload: job({}),
    contentType: 'text/plain',
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
  },
  'a form': {
    payload: 'name=n',
    contentType: 'application/x-www-form-urlencoded',
    status: 415,
    code: 'UNSUPPORTED_MEDIA_TYPE',
  },
  'a mebibyte and one byte': {
    payload: job({ data: 'x'.repeat(1_048_577 - job({ data: '' }).length) }),
    status: 413,
    code: 'PAYLOAD_TOO_LARGE',
  },
  'depth 65': {
    payload: `{"queue":"q","name":"n","data":${nested(64)}}`,
    status: 400,
    code: 'JSON_TOO_DEEP',
  },
  __proto__: { payload: '{"name":"n","data":{"__proto__":{"x":1}}}', status: 400, code: 'FORBIDDEN_KEY' },
  '__proto__ in escapes': {
    payload: '{"name":"n","data":{"\\u005f_proto__":1}}',
    status: 400,
    code: 'FORBIDDEN_KEY',
  },
  'constructor.prototype': {
    payload: '{"name":"n","data":{"constructor":{"prototype":{}}}}',
    status: 400,
    code: 'FORBIDDEN_KEY',
  },
  'an unknown field': {
    payload: job({ priorty: 1 }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/priorty',
  },
  'an unknown option': {
    payload: opts({ dealy: 1 }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/dealy',
  },
  'a repeat': {
    payload: opts({ repeat: { every: 1 } }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/repeat',
  },
  'no name': { payload: '{"queue":"q"}', status: 400, code: 'INVALID_REQUEST', pointer: '/name' },
  'a queue with a colon': {
    payload: job({ queue: 'a:b' }),
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/queue',
  },
  'a queue with a space': {
    payload: job({ queue: 'a b' }),
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/queue',
  },
  'a queue of 101 characters': {
    payload: job({ queue: 'q'.repeat(101) }),
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/queue',
  },
  'jobId completed': {
    payload: opts({ jobId: 'completed' }),
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/opts/jobId',
  },
  'jobId 42': { payload: opts({ jobId: '42' }), status: 422, code: 'INVALID_NAME', pointer: '/opts/jobId' },
  'jobId a:b': { payload: opts({ jobId: 'a:b' }), status: 422, code: 'INVALID_NAME', pointer: '/opts/jobId' },
  'jobId with a newline': {
    payload: opts({ jobId: 'a\n' }),
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/opts/jobId',
  },
  'an empty jobId': {
    payload: opts({ jobId: '' }),
    status: 422,
    code: 'INVALID_NAME',
    pointer: '/opts/jobId',
  },
  'delay abc': {
    payload: opts({ delay: 'abc' }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/delay',
  },
  'delay -1': { payload: opts({ delay: -1 }), status: 400, code: 'INVALID_REQUEST', pointer: '/opts/delay' },
  'delay NaN as a string': {
    payload: opts({ delay: 'NaN' }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/delay',
  },
  'a delay too large for a score': {
    payload: opts({ delay: 1e15 }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/delay',
  },
  'a fractional priority': {
    payload: opts({ priority: 1.5 }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/priority',
  },
  'priority 2097153': {
    payload: opts({ priority: 2_097_153 }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/priority',
  },
  'attempts 0': {
    payload: opts({ attempts: 0 }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/attempts',
  },
  'an unknown backoff': {
    payload: opts({ backoff: { type: 'fibonacci', delay: 1 } }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/backoff/type',
  },
  'a jitter above 1': {
    payload: opts({ backoff: { type: 'fixed', delay: 1, jitter: 1.1 } }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/opts/backoff/jitter',
  },
  'data larger than sizeLimit': {
    payload: job({ data: 'xxxx', opts: { sizeLimit: 3 } }),
    status: 422,
    code: 'INVALID_OPTION',
    pointer: '/data',
  },
}

const batches: Record<string, Case> = {
  'a batch of 0': { payload: '{"jobs":[]}', status: 400, code: 'INVALID_REQUEST', pointer: '/jobs' },
  'a batch of 1001': {
    payload: JSON.stringify({ jobs: Array.from({ length: 1_001 }, () => ({ queue: 'q', name: 'n' })) }),
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/jobs',
  },
  'a batch that is not an array': {
    payload: '{"jobs":{}}',
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/jobs',
  },
  'a batch with an unknown field': {
    payload: '{"jobs":[{"name":"n"}],"queue":"q"}',
    status: 400,
    code: 'INVALID_REQUEST',
    pointer: '/queue',
  },
}

async function check(
  t: typeof import('tap').default,
  url: string,
  { payload, status, code, pointer, contentType }: Case,
) {
  const headers = { 'content-type': contentType ?? 'application/json' }
  const response = await app.http.inject({ method: 'POST', url, headers, payload })
  t.equal(response.statusCode, status, response.body.slice(0, 300))
  t.equal(response.headers['content-type'], 'application/problem+json; charset=utf-8')
  const problem = response.json()
  t.match(problem, { code, status, type: /^\/problems\//, instance: /^urn:request:/ })
  t.ok(problem.detail.length > 10, 'a sentence')
  if (pointer !== undefined) {
    const found = problem.errors.find((error: { pointer: string }) => error.pointer === pointer)
    t.ok(found, `an error at ${pointer}: ${JSON.stringify(problem.errors)}`)
    t.ok(found?.detail.length > 5, found?.detail)
  }
  const keys = (await redis.client.keys(`${app.prefix}:*`)).filter(
    (key) => !key.includes(':works:') && !key.includes(':sluice:'),
  )
  t.same(keys, [], 'nothing was stored')
  const after = await app.http.inject({
    method: 'POST',
    url: '/jobs',
    headers: { 'content-type': 'application/json' },
    payload: '{"queue":"works","name":"n"}',
  })
  t.equal(after.statusCode, 201, 'the service works after it')
}

for (const [name, bad] of Object.entries(cases)) {
  t.test(`${name} is refused with ${bad.status} ${bad.code}`, (t) => check(t as never, '/jobs', bad))
}
for (const [name, bad] of Object.entries(batches)) {
  t.test(`${name} is refused with ${bad.status} ${bad.code}`, (t) => check(t as never, '/jobs/batch', bad))
}

t.test('an item that is too deep, too large or has a forbidden key is refused alone', async (t) => {
  const items: [item: string, status: number, code?: string, pointer?: string][] = [
    [job({ queue: 'works' }), 201],
    [`{"name":"n","data":{"a":[${nested(63)}]}}`, 400, 'JSON_TOO_DEEP', `/jobs/1/data/a${'/0'.repeat(62)}`],
    [
      '{"name":"n","data":[0,{"a/b":{"__proto__":{"x":1}}}]}',
      400,
      'FORBIDDEN_KEY',
      '/jobs/2/data/1/a~1b/__proto__',
    ],
    [job({ queue: 'works', data: nested(0) }), 201],
    [
      '{"name":"n","data":{"constructor":{"prototype":{}}}}',
      400,
      'FORBIDDEN_KEY',
      '/jobs/4/data/constructor/prototype',
    ],
    [job({ data: 'x'.repeat(1_048_577 - job({ data: '' }).length) }), 413, 'PAYLOAD_TOO_LARGE'],
    ['{"name":"n","__proto__":1}', 400, 'FORBIDDEN_KEY', '/jobs/6/__proto__'],
    ['{"queue":"works"}', 422, 'INVALID_ITEM', '/jobs/7/name'],
    [`{"queue":"works","name":"n","data":${nested(63)}}`, 201],
    [job({ queue: 'works', data: 'x'.repeat(1_048_576 - job({ queue: 'works', data: '' }).length) }), 201],
  ]
  const send = (payload: string) =>
    app.http.inject({
      method: 'POST',
      url: '/jobs/batch',
      headers: { 'content-type': 'application/json', 'idempotency-key': 'items' },
      payload,
    })
  const payload = `{"jobs":[${items.map(([item]) => item).join()}]}`
  const response = await send(payload)
  t.equal(response.statusCode, 207)
  const { created, failed, results } = response.json()
  t.match({ created, failed }, { created: 4, failed: 6 })
  for (const [index, [, status, code, pointer]] of items.entries()) {
    t.match(results[index], {
      index,
      status,
      ...(code ? { error: { status, code, outcome: 'not_executed' } } : {}),
    })
    if (pointer) t.equal(results[index].error.errors[0].pointer, pointer)
    if (status === 201) t.ok(await redis.client.exists(`${app.prefix}:${results[index].id}`))
  }
  t.match(
    (await send(payload)).json(),
    { created: 0, deduplicated: 4, failed: 6 },
    'a repeat finds the same jobs',
  )
  const refused = items.filter(([, status]) => status >= 400).map(([item]) => item)
  t.equal((await send(`{"jobs":[${refused.join()}]}`)).statusCode, 422)
  const broken = await send(`{"jobs":[${job({})},{"name":"n","data":[1,]}]}`)
  t.match(broken.json(), { status: 400, code: 'INVALID_JSON' }, 'text that is not JSON has no items')
})

t.test('exactly a mebibyte, depth 64 and 1,000 jobs are accepted', async (t) => {
  const send = (url: string, payload: string) =>
    app.http.inject({ method: 'POST', url, headers: { 'content-type': 'application/json' }, payload })
  const empty = JSON.stringify({ queue: 'works', name: 'n', data: '' })
  const full = JSON.stringify({ queue: 'works', name: 'n', data: 'x'.repeat(1_048_576 - empty.length) })
  t.equal(full.length, 1_048_576)
  t.equal((await send('/jobs', full)).statusCode, 201)
  t.equal((await send('/jobs', `{"queue":"works","name":"n","data":${nested(63)}}`)).statusCode, 201)
  const jobs = Array.from({ length: 1_000 }, () => ({ queue: 'works', name: 'n' }))
  t.equal((await send('/jobs/batch', JSON.stringify({ jobs }))).statusCode, 201)
})

t.test('a job with every allowed option is accepted', async (t) => {
  const everything = {
    jobId: 'a.b~c_d-1',
    delay: 0,
    priority: 1,
    lifo: true,
    attempts: 3,
    keepLogs: 1,
    stackTraceLimit: 0,
    sizeLimit: 100,
    backoff: { type: 'exponential', delay: 1, jitter: 1 },
    removeOnComplete: { age: 1, count: 2, limit: 3 },
    removeOnFail: false,
    deduplication: {
      id: 'd',
      ttl: 1,
      extend: true,
      replace: false,
      reschedule: false,
      keepLastIfActive: false,
    },
  }
  const response = await app.http.inject({
    method: 'POST',
    url: '/jobs',
    headers: { 'content-type': 'application/json; charset=utf-8' },
    payload: JSON.stringify({ queue: 'works', name: 'n', opts: everything }),
  })
  t.equal(response.statusCode, 201, response.body)
})

t.test('bytes that are not UTF-8 are refused, not replaced', async (t) => {
  for (const bytes of [
    [0xff, 0xfe],
    [0xc0, 0x80],
    [0xe2, 0x82],
  ]) {
    const payload = Buffer.concat([Buffer.from('{"name":"'), Buffer.from(bytes), Buffer.from('"}')])
    const headers = { 'content-type': 'application/json' }
    const response = await app.http.inject({ method: 'POST', url: '/jobs', headers, payload })
    t.equal(response.statusCode, 400)
    t.match(response.json(), { code: 'INVALID_JSON', detail: /not valid UTF-8/ })
  }
})

t.test('an invalid path is a problem document with its request id', async (t) => {
  for (const [url, status] of [
    ['/jobs/%zz', 400],
    [`/jobs/${'a'.repeat(800)}`, 404],
  ] as const) {
    const response = await app.http.inject(url)
    t.equal(response.statusCode, status)
    t.match(response.headers, { 'content-type': /^application\/problem\+json/, 'x-request-id': /./ })
    t.equal(response.json().instance, `urn:request:${response.headers['x-request-id']}`)
  }
})
