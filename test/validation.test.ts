import t from 'tap'
import { Type } from 'typebox'
import { batchEnvelope, NewJobBody } from '../src/jobs/enqueue/schemas.ts'
import { JobQuery } from '../src/jobs/status/schemas.ts'
import { createValidator } from '../src/validation.ts'

const validate = createValidator(NewJobBody)

/** `pointer detail` of each invalid field of a job with these options. */
function errorsOfOptions(opts: unknown): string[] {
  return errorsOf({ name: 'n', opts })
}

function errorsOf(body: unknown): string[] {
  return (validate(body)?.errors ?? []).map(({ pointer, detail }) => `${pointer} ${detail}`)
}

t.test('a valid value has no errors', async (t) => {
  const valid = [
    { name: 'n' },
    { name: 'n', data: null, opts: {} },
    { queue: 'emails.v2', name: 'x'.repeat(512), data: [1], opts: { jobId: 'a~b', backoff: 5 } },
    { name: 'n', opts: { backoff: { type: 'exponential', jitter: 0.5 }, removeOnComplete: true } },
    { name: 'n', opts: { removeOnComplete: 0, removeOnFail: { age: 1, count: 0, limit: 1 } } },
  ]
  for (const body of valid) t.equal(validate(body), undefined)
})

t.test('each invalid field has a pointer and a sentence', async (t) => {
  const unknown = 'is not a known field'
  const bodies: [unknown, string[]][] = [
    [null, [' must be object']],
    [[], [' must be object']],
    [{}, ['/name is missing']],
    [{ name: 1 }, ['/name must be string']],
    [{ name: '' }, ['/name must not have fewer than 1 characters']],
    [{ name: 'n', foo: 1, bar: 2 }, [`/foo ${unknown}`, `/bar ${unknown}`]],
    [{ name: 'n', 'a/b~c': 1 }, [`/a~1b~0c ${unknown}`]],
  ]
  for (const [body, expected] of bodies) t.same(errorsOf(body), expected, JSON.stringify(body))
  const options: [unknown, string[]][] = [
    [null, ['/opts must be object']],
    [{ foo: 1 }, [`/opts/foo ${unknown}`]],
    [{ delay: -1 }, ['/opts/delay must be >= 0']],
    [{ delay: 1.5 }, ['/opts/delay must be integer']],
    [{ delay: '1' }, ['/opts/delay must be integer']],
    [{ delay: 315_360_000_001 }, ['/opts/delay must be <= 315360000000']],
    [{ priority: 2_097_152 }, ['/opts/priority must be <= 2097151']],
    [{ attempts: 0 }, ['/opts/attempts must be >= 1']],
    [{ lifo: 1 }, ['/opts/lifo must be boolean']],
    [{ deduplication: {} }, ['/opts/deduplication/id is missing']],
  ]
  for (const [opts, expected] of options) t.same(errorsOfOptions(opts), expected, JSON.stringify(opts))
})

t.test('an invalid name is INVALID_NAME, and the error lists what is allowed', async (t) => {
  const queues = ['', ':', 'a:b', 'a'.repeat(513), 'a\ud800']
  for (const queue of queues) {
    t.match(validate({ name: 'n', queue }), {
      code: 'INVALID_NAME',
      errors: [
        {
          pointer: '/queue',
          detail:
            /^is not allowed: Queue name: 1 to 100 characters of .* 1 to 512 characters without a colon\.$/,
        },
      ],
    })
  }
  for (const jobId of ['', 'completed', 'meta', '12', 'a:b', '.a', '~a', 'a b', 'a'.repeat(129)]) {
    t.match(validate({ name: 'n', opts: { jobId } }), {
      code: 'INVALID_NAME',
      errors: [{ pointer: '/opts/jobId', detail: /^is not allowed: Key of the job: 1 to 128 characters of/ }],
    })
  }
})

t.test('an invalid name with another error is INVALID_REQUEST, and both are reported', async (t) => {
  const invalid = validate({ name: 'n', queue: 'a:b', opts: { jobId: 'meta', delay: -1 } })
  t.equal(invalid?.code, 'INVALID_REQUEST')
  t.same(invalid?.errors.map(({ pointer }) => pointer).sort(), ['/opts/delay', '/opts/jobId', '/queue'])
  t.equal(validate({ name: 'n', queue: 7 })?.code, 'INVALID_REQUEST', 'a value of another type is not a name')
})

t.test('a value with the shape of one union branch is reported by that branch alone', async (t) => {
  const unions: [unknown, string[]][] = [
    [{ backoff: -1 }, ['/opts/backoff must be >= 0']],
    [{ backoff: {} }, ['/opts/backoff/type is missing']],
    [{ backoff: { type: 'foo' } }, ['/opts/backoff/type must be one of fixed, exponential']],
    [{ backoff: { type: 'fixed', delay: -1 } }, ['/opts/backoff/delay must be >= 0']],
    [{ backoff: { type: 'fixed', jitter: 2 } }, ['/opts/backoff/jitter must be <= 1']],
    [{ backoff: { type: 'fixed', foo: 1 } }, ['/opts/backoff/foo is not a known field']],
    [{ removeOnComplete: -1 }, ['/opts/removeOnComplete must be >= 0']],
    [{ removeOnFail: { limit: 0 } }, ['/opts/removeOnFail/limit must be >= 1']],
    [{ removeOnFail: { agee: 1 } }, ['/opts/removeOnFail/agee is not a known field']],
  ]
  for (const [opts, expected] of unions) t.same(errorsOfOptions(opts), expected, JSON.stringify(opts))
})

t.test('a value with the shape of no union branch is reported by the union alone', async (t) => {
  const backoff = '/opts/backoff is not allowed: Delay before the next attempt: milliseconds, or {type:'
  for (const value of ['x', null, [], 1.5, true]) {
    const errors = errorsOfOptions({ backoff: value })
    t.equal(errors.length, 1)
    t.ok(errors[0]?.startsWith(backoff), JSON.stringify(value))
  }
  for (const [option, outcome] of [
    ['removeOnComplete', 'completed'],
    ['removeOnFail', 'failed'],
  ] as const) {
    t.match(errorsOfOptions({ [option]: 'x' }), [
      new RegExp(`^/opts/${option} is not allowed: .* the ${outcome} job`),
    ])
  }
})

t.test('all invalid fields are reported at once', async (t) => {
  const opts = {
    ...{ foo: 1, jobId: 'a:b', delay: -1, priority: -1, attempts: 0, lifo: 'x', backoff: { type: 'foo' } },
    ...{
      removeOnComplete: -1,
      removeOnFail: 'x',
      deduplication: {},
      keepLogs: -1,
      stackTraceLimit: -1,
      sizeLimit: 0,
    },
  }
  const pointers = validate({ opts })?.errors.map(({ pointer }) => pointer)
  const nested: Record<string, string> = { backoff: 'backoff/type', deduplication: 'deduplication/id' }
  const expected = Object.keys(opts).map((name) => `/opts/${nested[name] ?? name}`)
  t.same(pointers?.sort(), ['/name', ...expected].sort())
})

t.test('no input is reported with more than 32 errors', async (t) => {
  const fields = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, 1]))
  t.equal(validate({ name: 'n', ...fields(32) })?.errors.length, 32)
  t.equal(validate({ name: 'n', ...fields(100) })?.errors.length, 32)
  t.equal(validate({ name: 'n', ...fields(40), opts: { ...fields(40), delay: -1 } })?.errors.length, 32)
})

t.test('hundreds of unknown fields are reported as unknown fields', async (t) => {
  const fields = Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`f${i}`, 1]))
  const invalid = validate({ name: 'n', ...fields })
  t.equal(invalid?.code, 'INVALID_REQUEST')
  t.equal(invalid?.errors.length, 32)
})

t.test('queries and the envelope of a batch have the same error texts', async (t) => {
  const query = createValidator(JobQuery)
  t.equal(query({ include: 'data,logs' }), undefined)
  t.match(query({ includ: 'data' }), { code: 'INVALID_REQUEST', errors: [{ pointer: '/includ' }] })
  t.match(query({ include: 'all' })?.errors, [
    { pointer: '/include', detail: 'must be one of data, logs, data,logs, logs,data' },
  ])
  const batch = createValidator(batchEnvelope(2))
  t.equal(batch({ jobs: [1, 'anything'] }), undefined)
  for (const jobs of [[], [1, 2, 3], {}]) t.match(batch({ jobs })?.errors, [{ pointer: '/jobs' }])
})

t.test('beyond 1,000 unknown fields only their number is reported, within 200 ms', async (t) => {
  const validate = createValidator(
    Type.Object({ opts: Type.Object({ a: Type.Optional(Type.Integer()) }, { additionalProperties: false }) }),
  )
  const opts = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`k${i}`, 0]))
  // CPU time of this process: other tests may run at the same time.
  const before = process.cpuUsage()
  t.same(validate({ opts }), {
    code: 'INVALID_REQUEST',
    errors: [{ pointer: '/opts', detail: 'has 100000 fields, and the schema defines 1; remove the others' }],
  })
  t.ok(process.cpuUsage(before).user < 200_000)
})
