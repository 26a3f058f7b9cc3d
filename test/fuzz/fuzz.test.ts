/** Whatever is asked of any operation, the answer is one that the OpenAPI document names, and the service is well after it. */
import * as fc from 'fast-check'
import t from 'tap'
import { openapiDocument } from '../../openapi/generate.ts'
import { NewJobBody } from '../../src/jobs/enqueue/schemas.ts'
import { ExtendBody, SettleBody, TakeBody } from '../../src/leases/schemas.ts'
import { createValidator } from '../../src/validation.ts'
import { RotateBody, SubscriptionBody } from '../../src/webhooks/subscriptions/schemas.ts'
import type { Answer } from './clients.ts'
import { createContract } from './contract.ts'
import { createFromSchema } from './from-schema.ts'
import { type Case, type Document, readOperations } from './operations.ts'
import { runFuzz } from './run.ts'
import { isHarmless } from './special.ts'
import { allowed, refused } from './urls.ts'

const document = (await openapiDocument()) as Document

const bodies = {
  ...{ NewJob: NewJobBody, LeaseRequest: TakeBody, Settlement: SettleBody, Extension: ExtendBody },
  ...{ SubscriptionRequest: SubscriptionBody, SecretRotation: RotateBody },
}
const refTo = (name: string) => ({ $ref: `#/components/schemas/${name}` })

t.test('a body that is made to fit fits, and one that nearly does mostly does not', async (t) => {
  const { fitting, nearly } = createFromSchema(document.components.schemas, {
    jobId: ['a'],
    headers: ['x-a'],
  })
  for (const [name, body] of Object.entries(bodies)) {
    const validate = createValidator(body)
    t.same(
      fc.sample(fitting(refTo(name)), 500).filter((json) => validate(JSON.parse(json))),
      [],
      name,
    )
    const misfits = fc.sample(nearly(refTo(name)), 500).filter((json) => validate(JSON.parse(json)))
    t.ok(misfits.length > 150, `${name}: ${misfits.length} of 500`)
  }
})

t.test('lists and objects are made as long as they may be, and one longer', async (t) => {
  const { nearly } = createFromSchema(document.components.schemas, {})
  const lengths = (name: string, property: string) => {
    const all = fc.sample(nearly(refTo(name)), 2_000).map((json) => Object(JSON.parse(json))[property])
    return new Set(all.map((value) => Object.keys(Object(value)).length))
  }
  const items = lengths('Settlement', 'items')
  t.ok(items.has(0) && items.has(100) && items.has(101))
  const headers = lengths('SubscriptionRequest', 'headers')
  t.ok(headers.has(20) && headers.has(21))
})

t.test('a time that is made is one', async (t) => {
  const { fitting } = createFromSchema({}, {})
  const times = fc
    .sample(fitting({ type: 'string', format: 'date-time' }), 100)
    .map((json) => JSON.parse(json))
  t.ok(times.every((time) => new Date(time).toISOString() === time))
})

t.test('what is asked for leads to nobody but this machine, and waits for a second at most', async (t) => {
  const put = (url: string) => isHarmless(JSON.stringify({ url }))
  t.same(
    [...allowed, ...refused].filter((url) => !put(url)),
    [],
  )
  const beyond = [
    ...['http://example.com/', 'https://1.1.1.1/', 'http://[2606:4700::1111]/', 'http://127.0.0.1/', 'http://localhost:6379/'],
    ...['http://127.0.0.1:22/', 'http://x.localhost:1/', 'http://localhost.:1/', 'http://127.0.0.1.nip.io:1/', 'ftp://example.com/'],
    ...['http://bücher.example/', 'http://127.0.0.1:1@example.com/', 'http://16843009/', 'http://[::ffff:1.1.1.1]/', 'http://./'],
  ] // biome-ignore format: a list to read, not a column
  t.same(beyond.filter(put), [])
  for (const body of [
    '{"wait":30}',
    '\ufeff{"wait":2}',
    '{"wait":0,"wait":10}',
    '{"items":[],"next":{"wait":2}}',
  ]) {
    t.notOk(isHarmless(body), body)
  }
  for (const body of [
    '{"wait":1}',
    '{"wait":31}',
    '{"wait":"9"}',
    '{"next":{"wait":0}}',
    '[',
    'null',
    undefined,
  ]) {
    t.ok(isHarmless(body), body ?? 'nothing')
  }
})

t.test('a schema with a keyword that nobody has thought of is not passed over', async (t) => {
  const { fitting } = createFromSchema({}, {})
  t.throws(
    () => fitting({ type: 'object', properties: { a: { type: 'string', format: 'email' } } } as never),
    /format/,
  )
  t.throws(() => fitting({ type: 'tuple' }), /tuple/)
  t.throws(() => fitting({ $ref: '#/components/schemas/Nothing' }), /nowhere/)
})

t.test('an answer that breaks the contract in any way is seen', async (t) => {
  const faultsOf = createContract(document)
  const operation = readOperations(document).find(({ id }) => id === 'getJob')!
  const asked: Case = { method: 'GET', url: '/jobs/q:a', headers: { 'x-request-id': 'mine' } }
  const problem = {
    ...{
      type: '/problems/job-not-found',
      title: 'The job does not exist',
      status: 404,
      detail: 'Check the id.',
    },
    ...{ code: 'JOB_NOT_FOUND', retryable: false, instance: 'urn:request:mine' },
  }
  const headers = { 'x-request-id': 'mine', 'content-type': 'application/problem+json; charset=utf-8' }
  const sound: Answer = { status: 404, headers, body: JSON.stringify(problem), atMs: 0, ms: 1 }
  t.same(faultsOf(operation, asked, sound), [])
  const broken: Record<string, Partial<Answer>> = {
    'a status that is not listed': { status: 418 },
    'a failure that is listed': {
      status: 500,
      body: JSON.stringify({ ...problem, code: 'INTERNAL', status: 500 }),
    },
    'a 503 while nothing is wrong': {
      status: 503,
      body: JSON.stringify({ ...problem, code: 'OVERLOADED', status: 503 }),
    },
    'another media type': { headers: { ...headers, 'content-type': 'application/json' } },
    'no JSON': { body: '<html>' },
    'no body': { body: '' },
    'a field that is missing': { body: JSON.stringify({ ...problem, title: undefined }) },
    'a field that nobody named': { body: JSON.stringify({ ...problem, stack: '' }) },
    'a code that is not known': { body: JSON.stringify({ ...problem, code: 'OOPS' }) },
    'a code of another status': { body: JSON.stringify({ ...problem, code: 'INVALID_REQUEST' }) },
    'the id of another request': { headers: { ...headers, 'x-request-id': 'other' } },
    'another instance': { body: JSON.stringify({ ...problem, instance: 'urn:request:other' }) },
    'what is inside': { body: JSON.stringify({ ...problem, detail: 'at read (src/app.ts:1:1)' }) },
    'a long wait': { ms: 2_001 },
  }
  for (const [name, change] of Object.entries(broken)) {
    t.not(faultsOf(operation, asked, { ...sound, ...change }).length, 0, name)
  }
})

t.test('a time that is none is seen', async (t) => {
  const faultsOf = createContract(document)
  const operation = readOperations(document).find(({ id }) => id === 'takeLeases')!
  const asked: Case = { method: 'POST', url: '/queues/q/leases', headers: { 'x-request-id': 'mine' } }
  const headers = { 'x-request-id': 'mine', 'content-type': 'application/json; charset=utf-8' }
  const job = { id: 'q:a', name: 'n', data: {}, attempt: 1, attempts: 1, lease: 'x' }
  const answer = (expiresAt: string): Answer => {
    const body = JSON.stringify({ jobs: [{ ...job, expiresAt }] })
    return { status: 200, headers, body, atMs: 0, ms: 1 }
  }
  t.same(faultsOf(operation, asked, answer(new Date().toISOString())), [])
  t.not(faultsOf(operation, asked, answer('tomorrow')).length, 0)
})

t.test('no request makes an answer that the document does not name', runFuzz)
