/** Every generated request gets a response that the OpenAPI document describes, and the service still works afterwards. */
import * as fc from 'fast-check'
import t from 'tap'
import { openapiDocument } from '../../openapi/generate.ts'
import { NewJobBody } from '../../src/jobs/enqueue/schemas.ts'
import { ExtendBody, SettleBody, TakeBody } from '../../src/leases/schemas.ts'
import { createValidator } from '../../src/validation.ts'
import { RotateBody, SubscriptionBody } from '../../src/webhooks/subscriptions/schemas.ts'
import type { HttpResponse } from './clients.ts'
import { createContract } from './contract.ts'
import { createFromSchema } from './from-schema.ts'
import { type Case, type Document, readOperations } from './operations.ts'
import { runFuzz } from './run-fuzz.ts'
import { isHarmless } from './special-values.ts'
import { allowed, refused } from './urls.ts'

const document = (await openapiDocument()) as Document

const bodies = {
  ...{ NewJob: NewJobBody, LeaseRequest: TakeBody, Settlement: SettleBody, Extension: ExtendBody },
  ...{ SubscriptionRequest: SubscriptionBody, SecretRotation: RotateBody },
}
const refTo = (name: string) => ({ $ref: `#/components/schemas/${name}` })

t.test('generated valid bodies are valid, and near misses are mostly invalid', async (t) => {
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

t.test('lists and objects are generated at their maximum length, and one beyond it', async (t) => {
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

t.test('generated times are valid', async (t) => {
  const { fitting } = createFromSchema({}, {})
  const times = fc
    .sample(fitting({ type: 'string', format: 'date-time' }), 100)
    .map((json) => JSON.parse(json))
  t.ok(times.every((time) => new Date(time).toISOString() === time))
})

t.test('generated requests stay on this machine, and wait at most a second', async (t) => {
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
    t.ok(isHarmless(body), body ?? 'no body')
  }
})

t.test('an unsupported schema keyword throws', async (t) => {
  const { fitting } = createFromSchema({}, {})
  t.throws(
    () => fitting({ type: 'object', properties: { a: { type: 'string', format: 'email' } } } as never),
    /format/,
  )
  t.throws(() => fitting({ type: 'tuple' }), /tuple/)
  t.throws(() => fitting({ $ref: '#/components/schemas/Nothing' }), /does not exist/)
})

t.test('the contract check detects every kind of violation', async (t) => {
  const faultsOf = createContract(document)
  const operation = readOperations(document).find(({ id }) => id === 'getJob')!
  const testCase: Case = { method: 'GET', url: '/jobs/q:a', headers: { 'x-request-id': 'mine' } }
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
  const valid: HttpResponse = { status: 404, headers, body: JSON.stringify(problem), atMs: 0, ms: 1 }
  t.same(faultsOf(operation, testCase, valid), [])
  const broken: Record<string, Partial<HttpResponse>> = {
    'an unlisted status': { status: 418 },
    'a listed failure': {
      status: 500,
      body: JSON.stringify({ ...problem, code: 'INTERNAL', status: 500 }),
    },
    'a 503 without a cause': {
      status: 503,
      body: JSON.stringify({ ...problem, code: 'OVERLOADED', status: 503 }),
    },
    'another media type': { headers: { ...headers, 'content-type': 'application/json' } },
    'no JSON': { body: '<html>' },
    'no body': { body: '' },
    'a missing field': { body: JSON.stringify({ ...problem, title: undefined }) },
    'an undocumented field': { body: JSON.stringify({ ...problem, stack: '' }) },
    'an unknown code': { body: JSON.stringify({ ...problem, code: 'OOPS' }) },
    'a code of another status': { body: JSON.stringify({ ...problem, code: 'INVALID_REQUEST' }) },
    'the id of another request': { headers: { ...headers, 'x-request-id': 'other' } },
    'another instance': { body: JSON.stringify({ ...problem, instance: 'urn:request:other' }) },
    internals: { body: JSON.stringify({ ...problem, detail: 'at read (src/app.ts:1:1)' }) },
    'a slow response': { ms: 2_001 },
  }
  for (const [name, change] of Object.entries(broken)) {
    t.not(faultsOf(operation, testCase, { ...valid, ...change }).length, 0, name)
  }
})

t.test('the contract check detects an invalid time', async (t) => {
  const faultsOf = createContract(document)
  const operation = readOperations(document).find(({ id }) => id === 'takeLeases')!
  const testCase: Case = { method: 'POST', url: '/queues/q/leases', headers: { 'x-request-id': 'mine' } }
  const headers = { 'x-request-id': 'mine', 'content-type': 'application/json; charset=utf-8' }
  const job = { id: 'q:a', name: 'n', data: {}, attempt: 1, attempts: 1, lease: 'x' }
  const response = (expiresAt: string): HttpResponse => {
    const body = JSON.stringify({ jobs: [{ ...job, expiresAt }] })
    return { status: 200, headers, body, atMs: 0, ms: 1 }
  }
  t.same(faultsOf(operation, testCase, response(new Date().toISOString())), [])
  t.not(faultsOf(operation, testCase, response('tomorrow')).length, 0)
})

t.test('every response to a generated request matches the document', runFuzz)
