import t from 'tap'
import { encodeOptions } from '../../../src/bullmq/job-encoder.ts'
import { createIdempotencyRecords } from '../../../src/jobs/enqueue/idempotency.ts'
import { type NewJob, noData, noOptions } from '../../../src/jobs/enqueue/new-job.ts'
import { createPrepareJob } from '../../../src/jobs/enqueue/prepare-job.ts'
import { createKeyspace } from '../../../src/redis/keyspace.ts'

function setUp({ completedAge = 60, failedAge = 0, admit = (_bytes: number) => {} } = {}) {
  const prepareJob = createPrepareJob({
    config: { DEFAULT_KEEP_COMPLETED_AGE: completedAge, DEFAULT_KEEP_FAILED_AGE: failedAge },
    admit,
    newKey: (timestampMs) => `generated-${timestampMs}`,
    now: () => 17,
  })
  const prepare = (job: Partial<NewJob> = {}) =>
    prepareJob({ queue: 'q', name: 'n', data: noData, opts: noOptions, ...job })
  return { prepare }
}

t.test('a key is the client’s, else the caller’s, else generated', async (t) => {
  const { prepare } = setUp()
  t.match(prepare({ opts: { jobId: 'mine' }, key: 'ours' }), { key: 'mine', isKeyChosen: true })
  t.match(prepare({ key: 'ours' }), { key: 'ours', isKeyChosen: false })
  t.match(prepare(), { key: 'generated-17', isKeyChosen: false, timestamp: 17 })
})

t.test('options are filled in with the default retention and attempts', async (t) => {
  const { prepare } = setUp()
  t.same(prepare().options, encodeOptions({ attempts: 0, removeOnComplete: { age: 60 } }))
  t.same(
    prepare({ opts: { attempts: 3, removeOnComplete: 5 } }).options,
    encodeOptions({ attempts: 3, removeOnComplete: 5 }),
  )
  t.same(
    setUp({ completedAge: 0, failedAge: 9 }).prepare().options,
    encodeOptions({ attempts: 0, removeOnFail: { age: 9 } }),
  )
  t.equal(prepare().options, prepare().options, 'encoded once')
})

t.test('a backoff in milliseconds is a fixed one', async (t) => {
  const { prepare } = setUp({ completedAge: 0 })
  t.same(
    prepare({ opts: { backoff: 5 } }).options,
    encodeOptions({ attempts: 0, backoff: { type: 'fixed', delay: 5 } }),
  )
})

t.test('an idempotency record depends on the owner, the key and the payload', async (t) => {
  const { prepare } = setUp()
  const recordOf = createIdempotencyRecords(createKeyspace('bull'))
  const record = (owner: string, key: string, name = 'n') =>
    recordOf({ owner, key }, { queue: 'q', name, data: noData, opts: noOptions })
  t.equal(prepare().idempotency, undefined)
  t.equal(prepare({ idempotency: record('a', 'k') }).idempotency?.key, record('a', 'k').key)
  t.same(record('a', 'k'), record('a', 'k'))
  t.not(record('a', 'k').key, record('b', 'k').key)
  t.not(record('a', 'k').key, record('a', 'l').key)
  t.equal(record('a', 'k').key, record('a', 'k', 'other').key)
  t.not(record('a', 'k').fingerprint, record('a', 'k', 'other').fingerprint)
})

t.test('data larger than sizeLimit are refused, in bytes, before they are admitted', async (t) => {
  const admitted: number[] = []
  const { prepare } = setUp({ admit: (bytes) => admitted.push(bytes) })
  const data = Buffer.from('"é"')
  t.throws(() => prepare({ data, opts: { sizeLimit: 3 } }), {
    code: 'INVALID_OPTION',
    details: {
      errors: [
        {
          pointer: '/data',
          detail: 'is 4 bytes of JSON, and opts.sizeLimit is 3; send less, or raise the limit',
        },
      ],
    },
  })
  t.same(admitted, [])
  t.equal(prepare({ data, opts: { sizeLimit: 4 } }).data, data, 'the same bytes, not a copy')
  t.same(admitted, [4], 'bytes of JSON')
})

t.test('a text with half of a surrogate pair is refused', async (t) => {
  const { prepare } = setUp()
  const detail = 'contains half of a surrogate pair; send well-formed Unicode'
  t.throws(() => prepare({ name: '\ud800' }), {
    code: 'INVALID_NAME',
    details: { errors: [{ pointer: '/name', detail }] },
  })
  t.throws(() => prepare({ opts: { deduplication: { id: '\udc00' } } }), {
    code: 'INVALID_NAME',
    details: { errors: [{ pointer: '/opts/deduplication/id', detail }] },
  })
  t.equal(prepare({ name: '🎉' }).name, '🎉')
})
