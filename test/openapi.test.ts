/** The committed OpenAPI document and settings documents are what the source generates. */
import { readFile } from 'node:fs/promises'
import t from 'tap'
import { openapiDocument, openapiText } from '../openapi/generate.ts'
import { envExample } from '../scripts/env-example.ts'
import { ConfigSchema } from '../src/config/schema.ts'
import { BatchBody, NewJobBody } from '../src/jobs/enqueue/schemas.ts'
import { ExtendBody, SettleBody, TakeBody } from '../src/leases/schemas.ts'
import { createValidator } from '../src/validation.ts'
import { RotateBody, SubscriptionBody } from '../src/webhooks/subscriptions/schemas.ts'

interface Operation {
  operationId?: string
  summary?: string
  tags?: string[]
  responses: Record<string, { description?: string; content?: Record<string, { schema: object }> }>
}

interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object> }
}

const committed = (name: string) => readFile(new URL(`../${name}`, import.meta.url), 'utf8')
const document = (await openapiDocument()) as Document
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    name: `${method.toUpperCase()} ${path}`,
    operation,
  })),
)

t.test('openapi/openapi.json is what `npm run openapi` generates', async (t) => {
  t.equal(await committed('openapi/openapi.json'), await openapiText())
})

t.test('every operation has a unique operationId, a summary and a tag', async (t) => {
  t.ok(operations.length > 0)
  for (const { name, operation } of operations) {
    t.match(operation.operationId, /^[a-z][A-Za-z]+$/, name)
    t.ok(operation.summary, `${name} has a summary`)
    t.ok(operation.tags?.length, `${name} has a tag`)
  }
  const ids = operations.map(({ operation }) => operation.operationId)
  t.equal(new Set(ids).size, ids.length, 'operationIds are unique')
})

t.test('every operation documents its errors as application/problem+json', async (t) => {
  // These respond with more than a problem: the result of each job, or the health.
  const others = ['POST /jobs/batch 422', 'GET /health 503', 'GET /health/ready 503', 'GET /health/redis 503']
  for (const { name, operation } of operations) {
    const failures = Object.entries(operation.responses).filter(([status]) => /^[45]/.test(status))
    for (const kind of ['4', '5'])
      t.ok(
        failures.some(([status]) => status.startsWith(kind)),
        `${name} has a ${kind}xx`,
      )
    for (const [status, { description, content }] of failures) {
      t.ok(description, `${name} ${status} is described`)
      if (others.includes(`${name} ${status}`)) continue
      t.same(
        content,
        { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
        `${name} ${status}`,
      )
    }
  }
})

t.test('every $ref of the document resolves', async (t) => {
  for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/([^"]+)"/g))
    t.ok(document.components.schemas[name!], name!)
})

t.test('bodies have an example that is valid, which the documentation page sends', async (t) => {
  for (const schema of [
    NewJobBody,
    BatchBody,
    TakeBody,
    SettleBody,
    ExtendBody,
    SubscriptionBody,
    RotateBody,
  ]) {
    const { title, examples = [] } = schema as { title?: string; examples?: unknown[] }
    t.ok(examples.length > 0, title!)
    for (const example of examples) t.equal(createValidator(schema)(example), undefined, title!)
  }
})

t.test('.env.example is what `npm run env:example` generates', async (t) => {
  t.equal(await committed('.env.example'), envExample())
})

t.test('.env.example names every setting once, and sets none', async (t) => {
  const lines = envExample().split('\n')
  for (const name of Object.keys(ConfigSchema.properties)) {
    t.equal(lines.filter((line) => line.startsWith(`# ${name}=`)).length, 1, name)
  }
  t.same(
    lines.filter((line) => line !== '' && !line.startsWith('#')),
    [],
  )
})
