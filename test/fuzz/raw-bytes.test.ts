/**
 * Bytes that are not HTTP, or almost: every response is a problem or comes from Node's parser, none is a failure, no
 * request smuggled in a body is processed, and no connection leaks.
 */
import { promisify } from 'node:util'
import * as fc from 'fast-check'
import t from 'tap'
import { errorTable } from '../../src/errors.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { malformed, rawRequests } from './malformed-http.ts'
import {
  exchangeBytes,
  parseResponses,
  type RawExchange,
  type RawRequest,
  type RawResponse,
} from './raw-socket.ts'

const CONNECTIONS = Number(process.env['FUZZ_CONNECTIONS'] ?? 4_000)
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
const CONCURRENCY = 80

const redis = await startRedis()
t.teardown(() => redis.stop())
const app = await startApp(redis, { MAX_EVENT_LOOP_DELAY: '0' })
t.teardown(() => app.http.close())
await app.http.listen({ host: '127.0.0.1', port: 0 })
const { port } = app.http.server.address() as { port: number }
const connections = promisify(app.http.server.getConnections.bind(app.http.server)) as () => Promise<number>

/** Node responds to these itself, with an empty body: a missing Host, an unknown expectation. */
const isFromNode = ({ status, headers, body }: RawResponse) =>
  (status === 400 || status === 417) && body === '' && headers['content-type'] === undefined

function faultsOf(response: RawResponse): string[] {
  const { status, headers, body } = response
  if (status < 400 || isFromNode(response)) return []
  const text = `${status} ${JSON.stringify(headers)} ${body.slice(0, 200)}`
  if (status >= 500) return [`a failure: ${text}`]
  if (!headers['content-type']?.startsWith('application/problem+json')) return [`not a problem: ${text}`]
  const problem = JSON.parse(body) as { code: string; status: number }
  const row = Object.hasOwn(errorTable, problem.code) && errorTable[problem.code as 'BAD_HTTP']
  return row && row.status === status && problem.status === status ? [] : [`an unknown problem: ${text}`]
}

const probe = async () => {
  const alive = await app.http.inject('/health/live')
  const stored = await app.http.inject({
    ...{ method: 'POST', url: '/jobs', headers: { 'content-type': 'application/json' } },
    payload: '{"queue":"works","name":"n"}',
  })
  const read = await app.http.inject(`/jobs/${stored.json().id}`)
  return [alive.statusCode, stored.statusCode, read.statusCode].join()
}

for (const [name, { bytes, statuses }] of Object.entries(malformed)) {
  const wanted = [...new Set(statuses.map((some) => some.join(' or ')))].join(', then ')
  t.test(`${name}: ${wanted === '' ? 'is disconnected' : `gets ${wanted}`}`, async (t) => {
    const exchange = await exchangeBytes(port, {
      pieces: [Buffer.from(bytes as string, 'latin1')],
      leave: 'linger',
    })
    const { responses, rest } = parseResponses(exchange.bytes)
    t.equal(rest, '', 'only complete responses')
    t.ok(exchange.isClosed, 'the connection is closed')
    const received = responses.map(({ status }) => status)
    t.equal(responses.length, statuses.length, `statuses ${received}`)
    for (const [at, some] of statuses.entries())
      t.ok(some.includes(received[at] ?? 0), `statuses ${received}`)
    t.same(responses.flatMap(faultsOf), [])
    t.notMatch(exchange.bytes.toString('latin1'), /smuggled/)
    t.equal(await probe(), '200,201,200')
  })
}

t.test(`${CONNECTIONS} connections with malformed bytes do not impair the service`, async (t) => {
  t.comment(`FUZZ_SEED=${SEED}`)
  const faults = new Map<string, { rawRequest: RawRequest; times: number }>()
  const statuses = new Map<number | string, number>()
  const count = (what: number | string) => statuses.set(what, (statuses.get(what) ?? 0) + 1)
  const note = (fault: string, rawRequest: RawRequest) => {
    const kind = fault.replaceAll(/[0-9a-f-]{8,}|"x-request-id":"[^"]*"/g, '…').slice(0, 120)
    const known = faults.get(kind)
    if (known) known.times++
    else faults.set(kind, { rawRequest, times: 1 })
  }
  const judge = ({ bytes, isClosed }: RawExchange, rawRequest: RawRequest) => {
    const { responses, rest } = parseResponses(bytes)
    for (const response of responses) {
      count(response.status)
      for (const fault of faultsOf(response)) note(fault, rawRequest)
    }
    if (responses.length === 0) count(rest === '' ? 'no response' : 'an incomplete response')
    if (rawRequest.leave === 'linger' && rest !== '') note(`an incomplete response: ${rest}`, rawRequest)
    if (!isClosed) note('the connection stays open although the client has ended it', rawRequest)
  }
  let left = CONNECTIONS
  const work = async (worker: number) => {
    const size = Math.ceil(CONNECTIONS / CONCURRENCY)
    for (const rawRequest of fc.sample(rawRequests, { seed: SEED + worker * 7_919, numRuns: size })) {
      if (left-- <= 0) return
      judge(await exchangeBytes(port, rawRequest), rawRequest)
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, (_, worker) => work(worker)))
  t.comment(
    [...statuses]
      .sort()
      .map(([status, times]) => `${status} ×${times}`)
      .join(', '),
  )
  for (const [kind, { rawRequest, times }] of faults) {
    const sent = rawRequest.pieces.map((piece) => piece.toString('latin1'))
    t.fail(kind, {
      repeat: `FUZZ_SEED=${SEED}`,
      times,
      leave: rawRequest.leave,
      sent: JSON.stringify(sent),
      stack: '',
    })
  }
  t.ok((statuses.get(200) ?? 0) + (statuses.get(201) ?? 0) > CONNECTIONS / 50, 'some were valid requests')
  t.ok((statuses.get(400) ?? 0) > CONNECTIONS / 10, 'many were invalid')
  t.equal(await probe(), '200,201,200')
  await eventually(async () => (await connections()) === 0)
})

t.test('a client that half-closes after invalid bytes is disconnected', async (t) => {
  const exchange = await exchangeBytes(port, { pieces: [Buffer.from('nonsense\r\n\r\n')], leave: 'end' })
  t.ok(exchange.isClosed)
  t.match(parseResponses(exchange.bytes).responses, [{ status: 400 }])
})
