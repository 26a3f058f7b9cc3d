/** The pages of docs/reference/ are what their sources say. */
import { readFile } from 'node:fs/promises'
import t from 'tap'
import { referencePages } from '../../scripts/docs-reference.ts'
import { httpReference, type OpenapiDocument } from '../../scripts/http-reference.ts'
import { ConfigSchema } from '../../src/config/schema.ts'
import { errorTable } from '../../src/errors.ts'

const pages = await referencePages()

for (const [path, text] of Object.entries(pages)) {
  t.test(`${path} is what \`npm run docs\` writes now`, async (t) => {
    t.equal(await readFile(path, 'utf8'), text)
  })
}

t.test('the tables name every setting and every error code once', async (t) => {
  const rowsOf = (path: string) => pages[path]!.split('\n')
  for (const name of Object.keys(ConfigSchema.properties)) {
    const rows = rowsOf('docs/reference/configuration.md').filter((row) => row.startsWith(`| \`${name}\` |`))
    t.equal(rows.length, 1, name)
  }
  for (const code of Object.keys(errorTable)) {
    const rows = rowsOf('docs/reference/errors.md').filter((row) => row.startsWith(`| \`${code}\` |`))
    t.equal(rows.length, 1, code)
  }
})

t.test('an operation has its scope, parameters, statuses and codes', async (t) => {
  const document: OpenapiDocument = {
    tags: [{ name: 'jobs', description: 'About jobs.' }],
    paths: {
      '/jobs/{id}': {
        get: {
          operationId: 'getJob',
          summary: 'Get a job',
          tags: ['jobs'],
          security: [{ apiKey: ['read'] }, {}],
          parameters: [
            {
              name: 'wait',
              in: 'query',
              description: 'Seconds | 30 at most.',
              schema: { type: 'integer', minimum: 0, maximum: 30 },
            },
          ],
          responses: {
            200: {
              description: 'The job.',
              content: { 'application/json': { schema: { $ref: '#/components/schemas/Job' } } },
            },
            404: { description: '`JOB_NOT_FOUND`: There is no such job. `QUEUE_NOT_FOUND`: No queue.' },
          },
        },
      },
    },
    components: { schemas: { Job: { properties: { id: { type: 'string' } }, required: ['id'] } } },
  }
  const lines = httpReference(document).split('\n')
  for (const line of [
    '| [`GET /jobs/{id}`](#getjob) | Get a job | `read` |',
    '| `wait` | query | integer, 0 to 30 | Seconds \\| 30 at most. |',
    '| 200 | The job. | [Job](#job) |',
    '| 404 | `JOB_NOT_FOUND`, `QUEUE_NOT_FOUND` |  |',
    '| `id` | string |  |',
  ])
    t.ok(lines.includes(line), line)
})
