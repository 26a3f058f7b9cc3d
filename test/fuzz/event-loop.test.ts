/**
 * How long one request holds the event loop, within which nobody else is answered: the longest single turn of the loop
 * while it is dealt with. A turn counts with what it took by the clock, or with the work that was done in it where that
 * is less, since on a busy machine a process also waits for its turn; and of several goes the best counts, since nothing
 * makes a turn shorter than it is. The bound is for what is accepted, in bodies of a quarter of a mebibyte: what V8 itself
 * needs to read and write a value grows with it. The rest is measured, and told as comments.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t from 'tap'
import { startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { takeApart } from './wire.ts'

const BOUND_MS = 25
const GOES = 9

const redis = await startRedis()
t.teardown(() => redis.stop())
const app = await startApp(redis, { BODY_LIMIT: '262144', BATCH_BODY_LIMIT: '1310720' })
const { BODY_LIMIT, BATCH_BODY_LIMIT } = app.config
t.teardown(() => app.http.close())
await app.http.listen({ host: '127.0.0.1', port: 0 })
const { port } = app.http.server.address() as { port: number }

interface Go {
  status: number
  /** The longest turn of the event loop. */
  heldMs: number
  /** All the work of the process, of its other threads as well. */
  cpuMs: number
  answerBytes: number
}

/** Puts one request on a connection of its own, and watches the loop until the answer is whole. */
async function go(request: Buffer): Promise<Go> {
  const socket: Socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  const chunks: Buffer[] = []
  let missing = Number.POSITIVE_INFINITY
  let heldMs = 0
  let last = 0
  let lastWorked = 0
  const isWhole = new Promise<void>((resolve) => {
    socket.on('data', (chunk) => {
      if (chunks.length === 0) missing = wholeLength(chunk)
      chunks.push(chunk)
      missing -= chunk.length
    })
    const turn = () => {
      const now = performance.now()
      const { user, system } = process.cpuUsage()
      const worked = (user + system) / 1_000
      if (last > 0) heldMs = Math.max(heldMs, Math.min(now - last, worked - lastWorked))
      last = now
      lastWorked = worked
      if (missing > 0 && !socket.closed) setImmediate(turn)
      else resolve()
    }
    setImmediate(turn)
  })
  const cpu = process.cpuUsage()
  socket.write(request)
  await isWhole
  const { user, system } = process.cpuUsage(cpu)
  socket.destroy()
  const [{ status, body } = { status: 0, body: '' }] = takeApart(Buffer.concat(chunks)).answers
  return { status, heldMs, cpuMs: (user + system) / 1_000, answerBytes: body.length }
}

/** Of the answer that begins so. */
function wholeLength(chunk: Buffer): number {
  const head = chunk.subarray(0, chunk.indexOf('\r\n\r\n') + 4).toString('latin1')
  return head.length + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
}

/** Of several goes, or of fewer once one is good enough. */
async function best(request: Buffer, goes = GOES, enoughMs = 0): Promise<Go> {
  let found = await go(request)
  for (let at = 1; at < goes && found.heldMs > enoughMs; at++) {
    const one = await go(request)
    if (one.heldMs < found.heldMs) found = one
  }
  return found
}

const post = (path: string, body: string) => {
  const length = Buffer.byteLength(body)
  return Buffer.from(
    `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`,
  )
}
const get = (path: string, headers = '') => Buffer.from(`GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)

/** As many pieces as fit between the two into `limit` bytes. */
function filled(
  before: string,
  piece: (index: number) => string,
  after: string,
  limit = BODY_LIMIT,
  joint = ',',
): string {
  const all: string[] = []
  let room = limit - Buffer.byteLength(before) - Buffer.byteLength(after)
  for (let index = 0; ; index++) {
    const next = piece(index)
    const bytes = Buffer.byteLength(next) + joint.length
    if (room < bytes) break
    all.push(next)
    room -= bytes
  }
  return before + all.join(joint) + after
}

const JOB = '{"queue":"q","name":"n","data":'
const list = (piece: (index: number) => string) => filled(`${JOB}[`, piece, ']}')
const object = (piece: (index: number) => string) => filled(`${JOB}{`, piece, '}}')
const text = (piece: string) => filled(`${JOB}"`, () => piece, '"}', BODY_LIMIT, '')
const levels = (many: number) => '['.repeat(many) + ']'.repeat(many)

/** Bodies of BODY_LIMIT that are accepted. */
const bodies: Record<string, string> = {
  'a string of letters': text('x'),
  'a string of control characters in escapes': text('\\u0001'),
  'a string of quotes in escapes': text('\\"'),
  'a string of half pairs in escapes': text('\\ud800'),
  'a string of three-byte characters': text('€'),
  'a string of four-byte characters': text('😀'),
  'small numbers': list(() => '0'),
  'long numbers': list((i) => `${i}.${'123456789'.repeat(2)}e-300`),
  'empty lists': list(() => '[]'),
  'empty objects': list(() => '{}'),
  'objects of one shape': list((i) => `{"a":${i}}`),
  'objects of a shape each': list((i) => `{"k${i}":0}`),
  'lists of 61 levels': list(() => levels(61)),
  'one object with keys by the hundred thousand': object((i) => `"k${i}":0`),
  'one object with numbers for keys': object((i) => `"${i * 40_009}":0`),
  'the same key over and over': object(() => '"a":0'),
  'short strings': list((i) => `"${i}"`),
  'empty objects and a key called constructor': filled(`${JOB}[{"constructor":0},`, () => '{}', ']}'),
}

const jobs = (many: number, job: (index: number) => string) =>
  `{"jobs":[${Array.from({ length: many }, (_, i) => job(i))}]}`
const options = (i: number) =>
  `"delay":${i},"attempts":${i + 1},"backoff":{"type":"fixed","delay":${i}},"removeOnComplete":{"age":${i}},"keepLogs":${i}`

/** Batches, which may be five times as large; their items are checked in turns. */
const batches: Record<string, string> = {
  'a batch of 1,000 full of letters': jobs(1_000, () => `{"name":"n","data":"${'x'.repeat(1_200)}"}`),
  'a batch of 1,000 full of keys': jobs(1_000, (i) =>
    filled('{"name":"n","data":{', (k) => `"k${i}_${k}":0`, '}}', 1_200),
  ),
  'a batch of 5 full of keys': filled(
    '{"jobs":[',
    () => filled('{"name":"n","data":{', (k) => `"k${k}":0`, '}}', 260_000),
    ']}',
    BATCH_BODY_LIMIT,
  ),
  'a batch of 1,000 small jobs': jobs(1_000, () => '{"queue":"q","name":"n"}'),
  'a batch for 1,000 queues': jobs(1_000, (i) => `{"queue":"q${i}","name":"n"}`),
  'a batch of 1,000 with options of their own': jobs(1_000, (i) => `{"name":"n","opts":{${options(i)}}}`),
  'a batch of 1,000 of which none fits': jobs(1_000, () =>
    filled('{"name":"n",', (k) => `"unknown${k}":0`, '}', 1_200),
  ),
}

const long = (piece: string, bytes = 15_000) => piece.repeat(bytes / piece.length)

/** Requests that are refused, or small and hostile to what reads them. */
const others: Record<string, Buffer> = {
  'unknown fields by the hundred thousand': post(
    '/jobs',
    filled('{"name":"n",', (i) => `"k${i}":0`, '}'),
  ),
  'unknown options by the hundred thousand': post(
    '/jobs',
    filled('{"name":"n","opts":{', (i) => `"k${i}":0`, '}}'),
  ),
  'a jobId of digits': post(
    '/jobs',
    filled('{"name":"n","opts":{"jobId":"', () => '1', '"}}', BODY_LIMIT, ''),
  ),
  'a queue as long as a body': post(
    '/jobs',
    filled('{"name":"n","queue":"', () => 'a', '"}', BODY_LIMIT, ''),
  ),
  'a name as long as a body': post(
    '/jobs',
    filled('{"name":"', () => 'é', '"}', BODY_LIMIT, ''),
  ),
  'a body of [': post('/jobs', '['.repeat(BODY_LIMIT)),
  'a body of backslashes': post('/jobs', `"${'\\'.repeat(BODY_LIMIT - 1)}`),
  'JSON that breaks at its last byte': post('/jobs', list(() => '{}').replace(/.$/, ']')),
  '__proto__ at the end of a body': post(
    '/jobs',
    list(() => '{}').replace(/.{20}\]\}$/, ',{"__proto__":0}]}'),
  ),
  'a Prefer of commas': get('/jobs/q:a', `Prefer: ${long(', ')}wait\r\n`),
  'a Prefer of blanks': get('/jobs/q:a', `Prefer: ,${long(' ')}wait\r\n`),
  'an If-None-Match of commas': get('/jobs/q:seen', `If-None-Match: ${long(',')}\r\n`),
  'an id of 700 characters': get(`/jobs/${'a'.repeat(700)}`),
  'a path of 15 kB': get(`/jobs/${long('a/')}events`),
  'a query of 15 kB': get(`/jobs?${long('a=b&')}`),
  'ids of commas': get(`/jobs?ids=${long(',')}`),
  'a cursor of 8 kB': get(
    `/jobs?cursor=${Buffer.from(`[1,"q",null,"wait",${long('"a",', 6_000)}0]`).toString('base64url')}`,
  ),
}

/** What V8 alone needs to read such a text and to write it again, ms: less than this nobody can do. */
function plainMs(body: string): number {
  let bestMs = Number.POSITIVE_INFINITY
  for (let at = 0; at < 5; at++) {
    const began = performance.now()
    JSON.stringify(JSON.parse(body))
    bestMs = Math.min(bestMs, performance.now() - began)
  }
  return bestMs
}

const took = ({ heldMs, cpuMs, status, answerBytes }: Go) =>
  `${heldMs.toFixed(1)} ms held, ${cpuMs.toFixed(1)} ms of CPU, answered ${status} with ${answerBytes} bytes`

const own = (await best(get('/health/live'))).heldMs
t.comment(`the machine's own: ${own.toFixed(1)} ms`)

t.test(
  `no body of ${BODY_LIMIT} bytes that is accepted holds the event loop for more than ${BOUND_MS} ms, or three times what V8 needs`,
  async (t) => {
    for (const [name, body] of Object.entries(bodies)) {
      const boundMs = Math.max(BOUND_MS, 3 * plainMs(body))
      const found = await best(post('/jobs', body), GOES, own + boundMs)
      t.comment(`${name}: ${took(found)}`)
      t.equal(found.status, 201, name)
      t.ok(found.heldMs - own <= boundMs, `${name}: ${took(found)}`)
      await redis.client.flushall()
    }
  },
)

t.test('what a batch and what is refused cost', async (t) => {
  for (const [name, body] of Object.entries(batches)) {
    const found = await best(post('/jobs/batch', body), 3)
    t.comment(`${name}: ${took(found)}`)
    t.ok([201, 422].includes(found.status), `${name}: ${took(found)}`)
    await redis.client.flushall()
  }
  for (const [name, request] of Object.entries(others)) {
    const found = await best(request, 3)
    t.comment(`${name}: ${took(found)}`)
    t.ok(found.status > 0 && found.status < 500, `${name}: ${took(found)}`)
  }
})

t.test('what a read costs', async (t) => {
  for (const [many, bytes] of [
    [200, 200],
    [200, 20_000],
    [20, BODY_LIMIT],
  ] as const) {
    await redis.client.flushall()
    const keys = Array.from({ length: many }, (_, i) => `j${i}`)
    for (const key of keys) {
      const before = `{"queue":"q","name":"n","opts":{"jobId":"${key}"},"data":{`
      await go(
        post(
          '/jobs',
          filled(before, (i) => `"k${i}":0`, '}}', bytes),
        ),
      )
    }
    const ids = keys.map((key) => `q:${key}`).join()
    const fromRedis = 'Cache-Control: no-cache\r\n'
    const reads: Record<string, Buffer> = {
      'ids, read from Redis': get(`/jobs?ids=${ids}`, fromRedis),
      'ids, from memory': get(`/jobs?ids=${ids}`),
      'in a page': get('/jobs?queue=q&limit=200'),
      'with their data': get(`/jobs?ids=${ids}&include=data`, fromRedis),
      'of which one with its data': get('/jobs/q:j0?include=data', fromRedis),
    }
    for (const [name, request] of Object.entries(reads)) {
      const found = await best(request, 3)
      t.comment(`${many} jobs of ${bytes} bytes ${name}: ${took(found)}`)
      // Where it holds the loop for seconds, Redis is taken for silent.
      t.ok([200, 503].includes(found.status), name)
    }
  }
})
