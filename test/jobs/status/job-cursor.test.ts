/** Cursors as they are made and as they come back, without Redis. What a listing does with them: job-lister.test.ts. */
import t from 'tap'
import { decodeCursor, encodeCursor } from '../../../src/jobs/status/job-cursor.ts'
import { JOB_FIELDS, JOB_FIELDS_AND_DATA, toJobRecord } from '../../../src/redis/scripts/job-hash.ts'

const inSet = { collection: 'delayed', bookmark: ['d-1', '1790000000000'] }
const inList = { collection: 'wait', bookmark: [1, 5, 1, 2, 'w-4', 'w-3', 'w-4', 'w-2'] }

t.test('a cursor decodes to what was encoded, for the query that it belongs to', async (t) => {
  const delayed = { queue: 'q', state: 'delayed' as const }
  t.strictSame(decodeCursor(encodeCursor(delayed, inSet), delayed, ['delayed']), inSet)
  const every = { queue: 'q' }
  t.strictSame(decodeCursor(encodeCursor(every, inList), every, ['delayed', 'wait', 'paused']), inList)
})

t.test('a cursor of another queue, state or collection is refused', async (t) => {
  const waiting = { queue: 'q', state: 'waiting' as const }
  const cursor = encodeCursor(waiting, inList)
  const refused = {
    code: 'INVALID_REQUEST',
    details: { errors: [{ pointer: '?cursor', detail: /^belongs to another query\./ }] },
  }
  t.throws(() => decodeCursor(cursor, { ...waiting, queue: 'other' }, ['wait', 'paused']), refused)
  t.throws(() => decodeCursor(cursor, { queue: 'q' }, ['wait', 'paused']), refused)
  t.throws(() => decodeCursor(cursor, waiting, ['paused']), refused)
})

t.test('text that is not a cursor is refused', async (t) => {
  const query = { queue: 'q', state: 'waiting' as const }
  const refused = {
    code: 'INVALID_REQUEST',
    details: { errors: [{ pointer: '?cursor', detail: /^is not a valid cursor\./ }] },
  }
  const values = [1, 'q', 'waiting', 'wait', 1, 5, 1, 1, 'f', 'x'.repeat(8_000)]
  const long = Buffer.from(JSON.stringify(values)).toString('base64url')
  for (const text of ['', 'x', long]) t.throws(() => decodeCursor(text, query, ['wait']), refused)
})

t.test('a cursor can be sent back, however long the ids are, and keeps the ids that fit', async (t) => {
  const query = { queue: '\u0001'.repeat(512), state: 'waiting' as const }
  const long = 'é'.repeat(48_000)
  const list = { collection: 'wait', bookmark: [1, 5, 1, 2, 'w-4', long, 'w-4', 'w-2', long] }
  t.strictSame(decodeCursor(encodeCursor(query, list), query, ['wait']), {
    collection: 'wait',
    bookmark: [1, 5, 1, 2, 'w-4', '', 'w-4', 'w-2', ''],
  })
  const set = { collection: 'delayed', bookmark: [`a${'😀'.repeat(48_000)}`, '1790000000000'] }
  const { bookmark } = decodeCursor(encodeCursor(query, set), query, ['delayed'])
  const [id, score] = bookmark as [string, string]
  t.ok(id.length > 500 && !/\p{Surrogate}/u.test(id) && set.bookmark[0]!.startsWith(id))
  t.equal(score, '1790000000000')
})

t.test('the field that scripts read by position has that position, and data comes last', async (t) => {
  t.equal(JOB_FIELDS[1], 'timestamp', 'the second, as in job-fields.lua')
  t.strictSame(JOB_FIELDS_AND_DATA, [...JOB_FIELDS, 'data'])
})

t.test('a reply becomes a job: absent fields are left out, the score is the due time', async (t) => {
  const values = [null, Buffer.from('1790000000000'), Buffer.from('n')]
  t.strictSame(
    toJobRecord(Buffer.from('delayed'), values, Buffer.from(`${1_790_000_060_000 * 0x1000 + 17}`)),
    {
      state: 'delayed',
      hash: { timestamp: '1790000000000', name: 'n' },
      delayedUntilMs: 1_790_000_060_000,
    },
  )
  t.equal(toJobRecord(Buffer.from('waiting'), values, null).delayedUntilMs, undefined)
})
