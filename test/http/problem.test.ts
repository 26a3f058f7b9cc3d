/** Problems on a bare app: which errors carry Retry-After, and what clients see of unexpected ones. */
import Fastify from 'fastify'
import t from 'tap'
import { type ErrorCode, errorTable, SluiceError } from '../../src/errors.ts'
import { createRefusalPace } from '../../src/http/clients/refusal-pace.ts'
import { problemPlugin } from '../../src/http/problem.ts'
import { createRefusals } from '../../src/http/refusals.ts'

const app = Fastify()
await app.register(problemPlugin, { refusals: createRefusals(undefined), refusalPace: createRefusalPace(0) })
app.get('/throw/:code', async (request) => {
  throw new SluiceError((request.params as { code: ErrorCode }).code)
})
app.get('/retry-after', async () => {
  throw new SluiceError('OVERLOADED', { retryAfterS: 7 })
})
app.get('/bug', async () => {
  throw new Error('hunter2')
})
t.teardown(() => app.close())

t.test(
  'every problem has the status, code and texts of the table, and only 429 and 503 have Retry-After',
  async (t) => {
    for (const [code, { status, title, advice, retryable }] of Object.entries(errorTable)) {
      const response = await app.inject(`/throw/${code}`)
      t.equal(response.statusCode, status, code)
      t.equal(response.headers['content-type'], 'application/problem+json; charset=utf-8', code)
      t.match(response.json(), {
        code,
        status,
        title,
        detail: `${title}. ${advice}`,
        retryable,
        instance: /^urn:request:/,
      })
      const expected = status === 429 || status === 503 ? (retryable ? '1' : '60') : undefined
      t.equal(response.headers['retry-after'], expected, code)
    }
  },
)

t.test('Retry-After of the error takes precedence', async (t) => {
  t.equal((await app.inject('/retry-after')).headers['retry-after'], '7')
})

t.test('an unexpected error is a 500 that reveals nothing', async (t) => {
  const response = await app.inject('/bug')
  t.match(response.json(), { code: 'INTERNAL', status: 500, retryable: false })
  t.notMatch(response.body, /hunter2/)
})

t.test('an unknown path is 404, and an unsupported method of a known path is 405 with Allow', async (t) => {
  t.match((await app.inject('/unknown')).json(), { code: 'ROUTE_NOT_FOUND' })
  const response = await app.inject({ method: 'POST', url: '/bug' })
  t.match(response.json(), { code: 'METHOD_NOT_ALLOWED' })
  t.match(response.headers['allow'], /GET/)
})
