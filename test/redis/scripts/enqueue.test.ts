/** The message and the replies of enqueue.lua, without Redis. conformance.test.ts runs the script. */
import t from 'tap'
import { type EnqueueItem, packJobs, readReply } from '../../../src/redis/scripts/enqueue.ts'
import { jobValues } from '../../../src/redis/scripts/enqueue-layout.ts'

const options = { kind: 3, packed: Buffer.from('OPTIONS') }
const item: EnqueueItem = {
  key: 'KEY',
  isKeyChosen: true,
  name: 'NAME 🎉',
  timestamp: 1_790_000_000_000,
  deduplicationId: 'DEDUPLICATION_ID',
  idempotency: { key: 'RECORD_KEY', fingerprint: 'FINGERPRINT', roundedFingerprint: 'ROUNDED' },
  data: Buffer.from('"DATA"'),
  options,
}
/** Fewer characters than a large text has bytes. */
const large = Buffer.from(JSON.stringify('é'.repeat(1_024)))

/** The values of each job by name. */
function unpackJobs(packed: Buffer): Record<string, unknown>[] {
  const values: unknown[] = []
  t.equal(packed[0], 0xdd)
  for (let at = 5; at < packed.length; ) {
    const type = packed[at++]!
    if (type < 0x80) values.push(type)
    else if (type === 0xc2) values.push(false)
    else if (type === 0xcb) {
      values.push(packed.readDoubleBE(at))
      at += 8
    } else {
      t.equal(type, 0xdb)
      const start = at + 4
      at = start + packed.readUInt32BE(at)
      values.push(packed.toString('utf8', start, at))
    }
  }
  t.equal(values.length, packed.readUInt32BE(1), 'as many values as the array says')
  t.equal(values.length % jobValues.length, 0)
  return Array.from({ length: values.length / jobValues.length }, (_, job) =>
    Object.fromEntries(jobValues.map((name, index) => [name, values[job * jobValues.length + index]])),
  )
}

t.test('each value of a job is at the position of its name', async (t) => {
  const { packed, large } = packJobs([item])
  t.same(unpackJobs(packed), [
    {
      SCRIPT: 3,
      IS_KEY_CHOSEN: 1,
      KEY: 'KEY',
      NAME: 'NAME 🎉',
      TIMESTAMP: 1_790_000_000_000,
      DEDUPLICATION_ID: 'DEDUPLICATION_ID',
      DATA: '"DATA"',
      OPTIONS: 'OPTIONS',
      RECORD_KEY: 'RECORD_KEY',
      FINGERPRINT: 'FINGERPRINT',
      ROUNDED_FINGERPRINT: 'ROUNDED',
    },
  ])
  t.same(large, [])
})

t.test('missing values are false, and options like those of the job before are left out', async (t) => {
  const plain = { ...item, isKeyChosen: false, deduplicationId: undefined, idempotency: undefined }
  const other = { ...plain, options: { kind: 1, packed: Buffer.from('OTHER') } }
  const jobs = unpackJobs(packJobs([plain, plain, other, plain]).packed)
  t.match(jobs[0], {
    IS_KEY_CHOSEN: 0,
    DEDUPLICATION_ID: false,
    RECORD_KEY: false,
    FINGERPRINT: false,
    ROUNDED_FINGERPRINT: false,
  })
  t.same(
    jobs.map(({ OPTIONS }) => OPTIONS),
    ['OPTIONS', false, 'OTHER', 'OPTIONS'],
  )
})

t.test('large data are arguments of their own, in order', async (t) => {
  const second = Buffer.from(JSON.stringify('é'.repeat(1_025)))
  const { packed, large: arguments_ } = packJobs([{ ...item, data: large }, item, { ...item, data: second }])
  t.same(
    unpackJobs(packed).map(({ DATA }) => DATA),
    [false, '"DATA"', false],
  )
  t.equal(arguments_[0], large, 'not a copy')
  t.equal(arguments_[1], second)
  t.equal(arguments_.length, 2)
})

t.test('a reply is read by its code', async (t) => {
  t.same(readReply(1), { kind: 'created' })
  t.same(readReply([2, 'k', 'active', 'n', '17']), {
    kind: 'duplicate',
    key: 'k',
    name: 'n',
    state: 'active',
    timestamp: 17,
  })
  t.same(readReply([4, 'k']), { kind: 'replayed', key: 'k', name: null, state: null, timestamp: null })
  t.same(readReply([2, 'k', null, 'n', '17']), {
    kind: 'duplicate',
    key: 'k',
    name: 'n',
    state: null,
    timestamp: 17,
  })
  t.same(readReply([3, 'WRONGTYPE']), { kind: 'failed', error: 'WRONGTYPE' })
  t.same(readReply([5]), { kind: 'keyReused' })
})
