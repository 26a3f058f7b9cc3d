/** The table of errors, and the problems and OpenAPI responses made from it. */
import t from 'tap'
import {
  BODY_PROBLEMS,
  type ErrorCode,
  errorTable,
  problemResponses,
  problemType,
  REDIS_PROBLEMS,
  SluiceError,
  toProblem,
} from '../src/errors.ts'

const codes = Object.keys(errorTable) as ErrorCode[]

t.test('every code has an error status, a title, advice and its own type page', async (t) => {
  for (const code of codes) {
    const { status, title, advice } = errorTable[code]
    t.ok(status >= 400 && status < 600, code)
    t.match(title, /^[A-Z].*[^.]$/, `${code}: the title is capitalized and has no full stop`)
    t.match(advice, /\.$/, `${code}: the advice is whole sentences`)
    t.match(problemType(code), /^\/problems\/[a-z]+(-[a-z]+)*$/)
  }
  t.equal(problemType('JOB_NOT_FOUND'), '/problems/job-not-found')
  t.equal(new Set(codes.map(problemType)).size, codes.length)
})

t.test('only errors with status 408, 429 or 503 are retryable, and none that needs a repair', async (t) => {
  const retryable = codes.filter((code) => errorTable[code].retryable)
  for (const code of retryable) t.match([408, 429, 503].includes(errorTable[code].status), true, code)
  t.ok(retryable.includes('OVERLOADED'))
  t.notOk(retryable.includes('QUEUE_DAMAGED'), 'an operator has to repair it')
})

t.test('a problem without details contains exactly the texts of the table', async (t) => {
  t.strictSame(toProblem(new SluiceError('JOB_NOT_FOUND')), {
    type: '/problems/job-not-found',
    title: 'The job does not exist',
    status: 404,
    detail:
      'The job does not exist. Check the id, and that it is percent-encoded in a path. Retention may have removed a finished job.',
    code: 'JOB_NOT_FOUND',
    retryable: false,
  })
})

t.test('a problem contains the details, but neither the cause nor Retry-After', async (t) => {
  const details = {
    detail: 'Redis went away.',
    errors: [{ pointer: '/name', detail: 'is missing' }],
    outcome: 'unknown' as const,
    ids: ['q:1'],
  }
  const error = new SluiceError('REDIS_UNAVAILABLE', {
    ...details,
    retryAfterS: 3,
    cause: new Error('secret'),
  })
  t.strictSame(toProblem(error), {
    type: '/problems/redis-unavailable',
    title: 'Redis is unreachable',
    status: 503,
    code: 'REDIS_UNAVAILABLE',
    retryable: true,
    ...details,
  })
})

t.test('the message of a SluiceError is its detail or the title, and its cause is kept', async (t) => {
  const cause = new Error('below')
  const error = new SluiceError('INTERNAL', { detail: 'It broke.', cause })
  t.type(error, Error)
  t.match(error, { name: 'SluiceError', message: 'It broke.', code: 'INTERNAL', cause })
  t.equal(new SluiceError('INTERNAL').message, errorTable.INTERNAL.title)
  t.notOk('cause' in new SluiceError('INTERNAL'))
})

t.test('the responses of a route name every code, grouped by status', async (t) => {
  const responses = problemResponses([...BODY_PROBLEMS, ...REDIS_PROBLEMS, 'JOB_NOT_FOUND']) as Record<
    number,
    { description: string; content: Record<string, unknown> }
  >
  t.same(Object.keys(responses), ['400', '401', '404', '408', '413', '415', '421', '500', '503'])
  const expected: ErrorCode[] = [
    ...BODY_PROBLEMS,
    ...REDIS_PROBLEMS,
    'JOB_NOT_FOUND',
    'INVALID_REQUEST',
    'UNAUTHORIZED',
    'INTERNAL',
  ]
  for (const code of expected) {
    const { status, title } = errorTable[code]
    const where = Object.keys(responses).filter((key) =>
      responses[Number(key)]!.description.includes(`\`${code}\`: ${title}.`),
    )
    t.same(where, [String(status)], code)
  }
  for (const { content } of Object.values(responses))
    t.same(Object.keys(content), ['application/problem+json'])
})

t.test('a code that is listed twice is named once', async (t) => {
  const responses = problemResponses(['OVERLOADED', ...REDIS_PROBLEMS]) as Record<
    number,
    { description: string }
  >
  t.equal(responses[503]!.description.split('`OVERLOADED`').length, 2)
})

t.test('the responses of a route always include those of every route', async (t) => {
  t.same(Object.keys(problemResponses([])), ['400', '401', '421', '500'])
})
