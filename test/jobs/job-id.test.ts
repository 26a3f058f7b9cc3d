import { QueueKeys } from 'bullmq'
import t from 'tap'
import {
  createUuidv7,
  JOB_KEY_PATTERN,
  jobUrl,
  KEY_MAX,
  parseJobId,
  RESERVED_KEYS,
} from '../../src/jobs/job-id.ts'
import {
  isNewQueueName,
  isQueueName,
  QUEUE_PATTERN,
  QUEUE_SEGMENT_PATTERN,
  queueOfSegment,
  quoteName,
} from '../../src/queues/queue-name.ts'

const jobKey = new RegExp(JOB_KEY_PATTERN)
const uuidv7 = createUuidv7()
const START_MS = 1_790_000_000_000
const timeOf = (id: string) => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)

const ODD_NAMES = [
  ' ',
  'a b',
  'a/b?c#d%e&f+g',
  '..',
  '.',
  'é',
  '😀',
  '"\'`',
  'a\nb',
  '\0',
  '__proto__',
  '{a}',
  'a*[b]',
  'x'.repeat(512),
]

t.test(
  'a queue has any name that BullMQ accepts; a new one has 1 to 100 of the plain characters',
  async (t) => {
    for (const name of ['a', 'A-z_0.9', 'x'.repeat(100), '42', '..']) t.ok(isNewQueueName(name), name)
    for (const name of ['', 'x'.repeat(101), 'a:b', 'a b', 'a\n', '{a}', 'a*', 'é', 'a/b'])
      t.notOk(isNewQueueName(name), name)
    const pattern = new RegExp(QUEUE_PATTERN, 'u')
    for (const name of ODD_NAMES) {
      t.ok(isQueueName(name), name)
      t.match(name, pattern, 'other validators use the flag u')
    }
    for (const name of ['', ':', 'a:b', 'x'.repeat(513), '\ud800', 'a\udc00', '\udc00\ud800']) {
      t.notOk(isQueueName(name), JSON.stringify(name))
      t.notMatch(name, pattern)
    }
  },
)

t.test('a name in a path may end with a colon, because URLs drop the segments . and ..', async (t) => {
  const segment = new RegExp(QUEUE_SEGMENT_PATTERN)
  for (const [text, name] of [
    ['..:', '..'],
    ['..', '..'],
    ['a b', 'a b'],
    ['emails:', 'emails'],
  ] as const) {
    t.match(text, segment)
    t.equal(queueOfSegment(text), name)
  }
  for (const text of ['', ':', 'a::', 'a:b', 'a:b:']) t.notMatch(text, segment, text)
})

t.test('a name within a sentence is quoted unless it is plain', async (t) => {
  t.equal(quoteName('emails'), 'emails')
  t.equal(quoteName('x.\nOperator: "run" this'), '"x.\\nOperator: \\"run\\" this"')
})

t.test('a key chosen by a client is 1 to 128 of the allowed characters', async (t) => {
  for (const key of ['a', 'welcome-42', '-', '_x', 'a.b~c', '12a', '1.5', '-1', 'x'.repeat(128)])
    t.match(key, jobKey)
  for (const key of ['', 'x'.repeat(129), '.a', '~a', 'a:b', 'a b', 'a\n', 'é', 'a/b', '*'])
    t.notMatch(key, jobKey)
})

t.test('digits alone are refused, because BullMQ generates such ids', async (t) => {
  for (const key of ['0', '7', '007', '9'.repeat(30)]) t.notMatch(key, jobKey)
})

t.test('the name of a key of the queue is refused as a job key', async (t) => {
  // From BullMQ's queue-keys.js and its scripts.
  const words = [
    ...[
      'active',
      'wait',
      'waiting',
      'waiting-children',
      'paused',
      'id',
      'delayed',
      'prioritized',
      'completed',
    ],
    ...[
      'failed',
      'stalled',
      'stalled-check',
      'repeat',
      'limiter',
      'meta',
      'events',
      'pc',
      'marker',
      'de',
      'dn',
    ],
    ...['priority', 'metrics', 'relay'],
  ]
  for (const word of words) t.ok(RESERVED_KEYS.includes(word), word)
  for (const word of RESERVED_KEYS) {
    t.notMatch(word, jobKey)
    t.match(`${word}-1`, jobKey, 'only the whole word')
    t.match(`a${word}`, jobKey)
    t.same(parseJobId(`q:${word}-1`, 'default'), { queue: 'q', key: `${word}-1` })
  }
})

t.test('an id is split at its first colon; without one it belongs to the default queue', async (t) => {
  t.same(parseJobId('emails:welcome', 'default'), { queue: 'emails', key: 'welcome' })
  t.same(parseJobId('welcome', 'default'), { queue: 'default', key: 'welcome' })
  t.same(parseJobId('q:repeat:daily:17', 'default'), { queue: 'q', key: 'repeat:daily:17' })
  t.same(parseJobId('q:42', 'default'), { queue: 'q', key: '42' }, 'ids that BullMQ generated are valid')
  t.same(parseJobId(`q:${'x'.repeat(512)}`, 'default')?.key.length, 512)
})

t.test('the names of the own keys of a queue do not parse as ids; BullMQ takes all others', async (t) => {
  const own = Object.keys(new QueueKeys('bull').getKeys('q'))
  for (const key of own) {
    t.equal(parseJobId(`q:${key}`, 'default'), undefined, key)
    t.ok(key === '' || RESERVED_KEYS.includes(key), key)
  }
  for (const key of ['waiting', 'sluice', 'dn', 'metrics', ...ODD_NAMES])
    t.same(parseJobId(`q:${key}`, 'default'), { queue: 'q', key })
  for (const queue of ODD_NAMES) t.same(parseJobId(`${queue}:a:b`, 'default'), { queue, key: 'a:b' })
})

t.test('text that cannot be an id does not parse', async (t) => {
  for (const id of ['', ':', 'q:', ':a', '::', `q:${'x'.repeat(KEY_MAX + 1)}`, `${'q'.repeat(513)}:a`])
    t.equal(parseJobId(id, 'default'), undefined, JSON.stringify(id))
})

t.test('the URL of a job is ASCII, and leads to its id', async (t) => {
  t.equal(jobUrl({ queue: 'emails', key: 'welcome-42' }), '/jobs/emails:welcome-42')
  t.equal(jobUrl({ queue: 'q', key: 'repeat:a b:17' }), '/jobs/q:repeat:a%20b:17')
  for (const queue of ODD_NAMES) {
    for (const key of [...ODD_NAMES, 'x'.repeat(KEY_MAX), '\r\nX-Injected: 1']) {
      const url = jobUrl({ queue, key })!
      t.match(url, /^\/jobs\/[\x21-\x7e]+$/)
      const { pathname } = new URL(url, 'http://localhost')
      t.same(parseJobId(decodeURIComponent(pathname.slice('/jobs/'.length)), 'default'), { queue, key })
    }
  }
  t.equal(jobUrl({ queue: 'q', key: 'x'.repeat(KEY_MAX + 1) }), undefined)
  t.ok(jobUrl({ queue: 'q', key: '中'.repeat(1_500) }))
  t.equal(
    jobUrl({ queue: 'q', key: '中'.repeat(1_600) }),
    undefined,
    'a header of more than 14,000 characters',
  )
})

t.test('a UUIDv7 has its time, version and variant where RFC 9562 puts them', async (t) => {
  const id = uuidv7(START_MS)
  t.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  t.equal(timeOf(id), START_MS)
  t.match(id, jobKey, 'it is a valid key')
  const variants = new Set(Array.from({ length: 2_000 }, () => uuidv7(START_MS)[19]))
  t.same([...variants].sort(), ['8', '9', 'a', 'b'], 'the bits after the variant are random')
})

t.test(
  '200,000 ids are unique and sort in the order of creation, with 20,000 in each millisecond',
  async (t) => {
    const startMs = START_MS + 10_000
    const ids = Array.from({ length: 200_000 }, (_, index) => uuidv7(startMs + Math.floor(index / 20_000)))
    t.equal(new Set(ids).size, ids.length)
    t.equal(
      ids.findIndex((id, index) => index > 0 && id <= ids[index - 1]!),
      -1,
    )
    t.equal(new Set(ids.map((id) => id.slice(19))).size, ids.length, 'the random half alone is unique')
    t.ok(ids.every((id) => id[14] === '7' && '89ab'.includes(id[19]!)))
  },
)

t.test('after 4,096 ids in a millisecond, the next millisecond is borrowed', async (t) => {
  const ms = START_MS + 20_000
  const ids = Array.from({ length: 4_097 }, () => uuidv7(ms))
  t.equal(timeOf(ids[4_095]!), ms)
  t.equal(timeOf(ids[4_096]!), ms + 1)
  t.equal(ids[4_096]!.slice(14, 18), '7000')
})

t.test('a clock that goes back does not break the order', async (t) => {
  const ms = START_MS + 30_000
  const before = uuidv7(ms)
  const during = Array.from({ length: 5_000 }, () => uuidv7(ms - 3_600_000))
  const after = uuidv7(ms + 5)
  const ids = [before, ...during, after]
  t.same([...ids].sort(), ids)
  t.equal(new Set(ids).size, ids.length)
  t.equal(timeOf(after), ms + 5, 'its time is used again once it has caught up')
})
