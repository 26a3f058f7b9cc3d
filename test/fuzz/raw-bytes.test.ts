/**
 * Bytes on the socket that are no HTTP, or nearly: every answer is one of ours or of Node's parser, none is a failure,
 * nothing is served that stood in another request's body, and no connection is left behind.
 */
import { promisify } from 'node:util'
import * as fc from 'fast-check'
import t from 'tap'
import { errorTable } from '../../src/errors.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { malformed, wires } from './malformed.ts'
import { type Heard, type RawAnswer, speak, takeApart, type Wire } from './wire.ts'

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

/** Node answers these before anybody is asked: a Host that is missing, an expectation that nobody knows. */
const isOfNode = ({ status, headers, body }: RawAnswer) =>
  (status === 400 || status === 417) && body === '' && headers['content-type'] === undefined

function faultsOf(answer: RawAnswer): string[] {
  const { status, headers, body } = answer
  if (status < 400 || isOfNode(answer)) return []
  const text = `${status} ${JSON.stringify(headers)} ${body.slice(0, 200)}`
  if (status >= 500) return [`a failure: ${text}`]
  if (!headers['content-type']?.startsWith('application/problem+json')) return [`no problem: ${text}`]
  const problem = JSON.parse(body) as { code: string; status: number }
  const row = Object.hasOwn(errorTable, problem.code) && errorTable[problem.code as 'BAD_HTTP']
  return row && row.status === status && problem.status === status ? [] : [`an unknown problem: ${text}`]
}

const works = async () => {
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
  t.test(`${name}: ${wanted === '' ? 'is hung up on' : `is answered ${wanted}`}`, async (t) => {
    const heard = await speak(port, { pieces: [Buffer.from(bytes as string, 'latin1')], leave: 'linger' })
    const { answers, rest } = takeApart(heard.bytes)
    t.equal(rest, '', 'nothing but whole answers')
    t.ok(heard.isClosed, 'the connection was given up')
    const told = answers.map(({ status }) => status)
    t.equal(answers.length, statuses.length, `answered ${told}`)
    for (const [at, some] of statuses.entries()) t.ok(some.includes(told[at] ?? 0), `answered ${told}`)
    t.same(answers.flatMap(faultsOf), [])
    t.notMatch(heard.bytes.toString('latin1'), /smuggled/)
    t.equal(await works(), '200,201,200')
  })
}

t.test(
  `${CONNECTIONS} connections of bytes that nobody should send leave the service as it was`,
  async (t) => {
    t.comment(`FUZZ_SEED=${SEED}`)
    const faults = new Map<string, { wire: Wire; times: number }>()
    const statuses = new Map<number | string, number>()
    const count = (what: number | string) => statuses.set(what, (statuses.get(what) ?? 0) + 1)
    const note = (fault: string, wire: Wire) => {
      const kind = fault.replaceAll(/[0-9a-f-]{8,}|"x-request-id":"[^"]*"/g, '…').slice(0, 120)
      const known = faults.get(kind)
      if (known) known.times++
      else faults.set(kind, { wire, times: 1 })
    }
    const judge = ({ bytes, isClosed }: Heard, wire: Wire) => {
      const { answers, rest } = takeApart(bytes)
      for (const answer of answers) {
        count(answer.status)
        for (const fault of faultsOf(answer)) note(fault, wire)
      }
      if (answers.length === 0) count(rest === '' ? 'no answer' : 'less than an answer')
      if (wire.leave === 'linger' && rest !== '') note(`no whole answer: ${rest}`, wire)
      if (!isClosed) note('the connection is kept though the client has ended it', wire)
    }
    let left = CONNECTIONS
    const work = async (worker: number) => {
      const size = Math.ceil(CONNECTIONS / CONCURRENCY)
      for (const wire of fc.sample(wires, { seed: SEED + worker * 7_919, numRuns: size })) {
        if (left-- <= 0) return
        judge(await speak(port, wire), wire)
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, (_, worker) => work(worker)))
    t.comment(
      [...statuses]
        .sort()
        .map(([status, times]) => `${status} ×${times}`)
        .join(', '),
    )
    for (const [kind, { wire, times }] of faults) {
      const sent = wire.pieces.map((piece) => piece.toString('latin1'))
      t.fail(kind, {
        repeat: `FUZZ_SEED=${SEED}`,
        times,
        leave: wire.leave,
        sent: JSON.stringify(sent),
        stack: '',
      })
    }
    t.ok(
      (statuses.get(200) ?? 0) + (statuses.get(201) ?? 0) > CONNECTIONS / 50,
      'some were requests after all',
    )
    t.ok((statuses.get(400) ?? 0) > CONNECTIONS / 10, 'many were none')
    t.equal(await works(), '200,201,200')
    await eventually(async () => (await connections()) === 0)
  },
)

t.test('who half-closes after what is no request, and stays, is hung up on', async (t) => {
  const heard = await speak(port, { pieces: [Buffer.from('nonsense\r\n\r\n')], leave: 'end' })
  t.ok(heard.isClosed)
  t.match(takeApart(heard.bytes).answers, [{ status: 400 }])
})
