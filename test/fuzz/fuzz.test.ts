/** Whatever is asked of any operation, the answer is one that the OpenAPI document names, and the service is well after it. */
import * as fc from 'fast-check'
import t from 'tap'
import { openapiDocument } from '../../openapi/generate.ts'
import { NewJobBody } from '../../src/jobs/schemas.ts'
import { createValidator } from '../../src/validation.ts'
import type { Answer } from './clients.ts'
import { createContract } from './contract.ts'
import { createFromSchema } from './from-schema.ts'
import { type Case, type Document, readOperations } from './operations.ts'
import { runFuzz } from './run.ts'

const document = (await openapiDocument()) as Document

t.test('a body that is made to fit fits, and one that nearly does mostly does not', async (t) => {
  const { fitting, nearly } = createFromSchema(document.components.schemas, { jobId: ['a'] })
  const validate = createValidator(NewJobBody)
  const schema = { $ref: '#/components/schemas/NewJob' }
  t.same(
    fc.sample(fitting(schema), 500).filter((json) => validate(JSON.parse(json))),
    [],
  )
  const misfits = fc.sample(nearly(schema), 500).filter((json) => validate(JSON.parse(json)))
  t.ok(misfits.length > 200, `${misfits.length} of 500`)
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
      title: 'There is no such job',
      status: 404,
      detail: 'Check the id.',
    },
    ...{ code: 'JOB_NOT_FOUND', retryable: false, instance: 'urn:request:mine' },
  }
  const headers = { 'x-request-id': 'mine', 'content-type': 'application/problem+json; charset=utf-8' }
  const sound: Answer = { status: 404, headers, body: JSON.stringify(problem), ms: 1 }
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

t.test('no request makes an answer that the document does not name', runFuzz)
