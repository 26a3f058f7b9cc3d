import t from 'tap'
import { SluiceError } from '../../../src/errors.ts'
import { toOutcome, withJobId } from '../../../src/jobs/enqueue/enqueue-outcome.ts'
import type { EnqueueItem, EnqueueResult } from '../../../src/redis/scripts/enqueue.ts'

const item: EnqueueItem = {
  key: 'mine',
  isKeyChosen: true,
  name: 'welcome',
  timestamp: 17,
  deduplicationId: undefined,
  idempotency: undefined,
  data: Buffer.from('{}'),
  options: { kind: 2, packed: Buffer.alloc(0) },
}
const existing = { key: 'theirs', name: 'other', state: 'completed', timestamp: 5 } as const
const unconfirmed = new SluiceError('NOT_REPLICATED', { outcome: 'unknown', retryAfterS: 1 })
const outcome = (result: EnqueueResult, unconfirmed?: SluiceError) =>
  toOutcome('q', item, result, unconfirmed)

t.test('a created job has the values of its request, and the state of its options', async (t) => {
  t.same(outcome({ kind: 'created' }), {
    queue: 'q',
    key: 'mine',
    name: 'welcome',
    state: 'delayed',
    timestamp: 17,
    deduplicated: false,
    replayed: false,
  })
  const states = [1, 2, 3].map((kind) => {
    const options = { ...item.options, kind }
    return (toOutcome('q', { ...item, options }, { kind: 'created' }, undefined) as { state: string }).state
  })
  t.same(states, ['waiting', 'delayed', 'prioritized'])
})

t.test('a duplicate and a replay have the values of the job that exists', async (t) => {
  const expected = { queue: 'q', ...existing, deduplicated: true }
  t.same(outcome({ kind: 'duplicate', ...existing }), { ...expected, replayed: false })
  t.same(outcome({ kind: 'replayed', ...existing }), { ...expected, replayed: true })
})

t.test('a reused idempotency key names no job', async (t) => {
  const error = outcome({ kind: 'keyReused' }, unconfirmed) as SluiceError
  t.match(error, { code: 'IDEMPOTENCY_KEY_REUSED', details: { outcome: 'not_executed' } })
  t.equal(withJobId(error, 'q', 'mine'), error)
})

t.test('a failed job is not executed, and the error carries its id', async (t) => {
  const text = `WRONGTYPE Operation against a key ${'x'.repeat(200)}`
  const error = outcome({ kind: 'failed', error: text }, unconfirmed) as SluiceError
  t.match(error, { code: 'QUEUE_DAMAGED', cause: { message: text } })
  t.match(error.details, { outcome: 'not_executed', ids: ['q:mine'] })
  t.equal(
    error.details.detail,
    `Redis refused the job: ${text.slice(0, 120)}. Repair or delete the key of this queue that has the wrong type.`,
  )
  t.match(outcome({ kind: 'failed', error: 'what is this' }), {
    code: 'INTERNAL',
    details: { outcome: 'not_executed', detail: undefined },
  })
})

t.test('without confirmation each job that exists has an error with its id', async (t) => {
  t.match(outcome({ kind: 'created' }, unconfirmed), {
    code: 'NOT_REPLICATED',
    details: { ids: ['q:mine'], outcome: 'unknown', retryAfterS: 1 },
  })
  t.match(outcome({ kind: 'duplicate', ...existing }, unconfirmed), { details: { ids: ['q:theirs'] } })
  t.equal(unconfirmed.details.ids, undefined, 'the shared error is unchanged')
})

t.test('an unexpected error is passed on unchanged', async (t) => {
  const error = new TypeError('a bug')
  t.equal(withJobId(error, 'q', 'k'), error)
})
