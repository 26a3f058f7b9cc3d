import t, { type Test } from 'tap'
import {
  detectGap,
  type Gap,
  isAfter,
  type KnownPosition,
  millisecondsOf,
  STREAM_START,
  type StreamFacts,
} from '../../../src/redis/streams/stream-position.ts'

/** A stream as inspected. `first` '': it is empty. `added` -1: before Redis 7. */
const stream = (first: string, last: string, length: number, added: number): StreamFacts => ({
  kind: 'stream',
  firstId: first === '' ? undefined : first,
  lastId: last,
  length,
  added,
})

/** Checks every row of a table; a failure names its row. */
function finds(
  t: Test,
  gap: Gap | undefined,
  rows: [what: string, known: KnownPosition, facts: StreamFacts][],
): void {
  for (const [what, known, facts] of rows) t.equal(detectGap(known, facts), gap, what)
}

t.test('positions are ordered by number, not by digits', async (t) => {
  const ordered = [
    STREAM_START,
    '0-1',
    '0-9',
    '0-10',
    '1-0',
    '9-99',
    '10-0',
    '10-2',
    '10-11',
    '999999999999-5',
    '1000000000000-0',
    '1700000000000-9',
    '1700000000000-10',
    '1700000000001-0',
  ]
  for (const [i, a] of ordered.entries()) {
    for (const [j, b] of ordered.entries()) t.equal(isAfter(a, b), i > j, `${a} after ${b}`)
  }
})

t.test('no position comes after itself', async (t) => {
  t.equal(isAfter('1700000000000-3', '1700000000000-3'), false)
  t.equal(isAfter(STREAM_START, STREAM_START), false)
})

t.test('the time of an entry is the first part of its position', async (t) => {
  t.equal(millisecondsOf('1700000000123-45'), 1_700_000_000_123)
  t.equal(millisecondsOf('7-1700000000000'), 7)
  t.equal(millisecondsOf(STREAM_START), 0)
})

t.test('a stream that still holds the entry after the position has no gap', async (t) => {
  finds(t, undefined, [
    ['nothing new', { position: '5-0', length: 5, added: 5 }, stream('1-0', '5-0', 5, 5)],
    ['new entries', { position: '5-0', length: 5, added: 5 }, stream('1-0', '9-0', 9, 9)],
    ['trimmed up to the position', { position: '5-0', length: 5, added: 5 }, stream('5-0', '9-0', 5, 9)],
    [
      'trimmed behind the position only',
      { position: '5-1', length: 5, added: 5 },
      stream('5-0', '9-0', 5, 9),
    ],
    ['emptied, and all of it was read', { position: '5-0', length: 5, added: 5 }, stream('', '5-0', 0, 5)],
    ['the first check', { position: '5-0' }, stream('1-0', '9-0', 9, 9)],
    ['the first check, before Redis 7', { position: '5-0' }, stream('1-0', '9-0', 9, -1)],
  ])
})

t.test('a stream whose first entry is after the position was trimmed', async (t) => {
  finds(t, 'trimmed', [
    ['by a millisecond', { position: '5-0', length: 5, added: 5 }, stream('6-0', '9-0', 4, 9)],
    ['within a millisecond', { position: '5-0', length: 5, added: 5 }, stream('5-1', '9-0', 4, 9)],
    ['by a digit', { position: '9-0', length: 5, added: 5 }, stream('10-0', '12-0', 3, 9)],
    ['at the first check', { position: '5-0' }, stream('6-0', '9-0', 4, 9)],
    ['before Redis 7', { position: '5-0', length: 5, added: -1 }, stream('6-0', '9-0', 4, -1)],
    [
      'to nothing, and more had been added',
      { position: '5-0', length: 5, added: 5 },
      stream('', '9-0', 0, 9),
    ],
    ['to nothing, at the first check', { position: '5-0' }, stream('', '5-1', 0, 6)],
    ['to nothing, and none was ever read', { position: STREAM_START }, stream('', '900-0', 0, 5_000)],
  ])
})

t.test('a stream that ends before the position was reset', async (t) => {
  finds(t, 'reset', [
    ['by a millisecond', { position: '9-0', length: 9, added: 9 }, stream('1-0', '8-0', 9, 9)],
    ['within a millisecond', { position: '9-10', length: 9, added: 9 }, stream('1-0', '9-9', 9, 9)],
    ['although more were added', { position: '9-0', length: 9, added: 9 }, stream('1-0', '8-0', 99, 99)],
    ['at the first check', { position: '9-0' }, stream('1-0', '8-0', 8, 8)],
    ['before Redis 7', { position: '9-0', length: 9, added: -1 }, stream('1-0', '8-0', 9, -1)],
    ['never written to', { position: '9-0', length: 9, added: 9 }, stream('', STREAM_START, 0, 0)],
  ])
})

t.test('a stream with fewer entries ever added than before was reset', async (t) => {
  finds(t, 'reset', [
    ['one fewer', { position: '5-0', length: 5, added: 9 }, stream('6-0', '20-0', 8, 8)],
    ['although it holds the position', { position: '5-0', length: 5, added: 9 }, stream('5-0', '20-0', 8, 8)],
    [
      'although nothing of it was read',
      { position: STREAM_START, length: 5, added: 9 },
      stream('1-0', '2-0', 2, 2),
    ],
    ['rather than trimmed', { position: '5-0', length: 5, added: 500 }, stream('6-0', '9-0', 3, 3)],
  ])
})

t.test('where Redis counts the entries added, a shorter stream is no reset', async (t) => {
  finds(t, undefined, [
    ['to one', { position: '9-0', length: 10_000, added: 10_000 }, stream('9-0', '9-0', 1, 10_000)],
    ['to none', { position: '9-0', length: 10_000, added: 10_000 }, stream('', '9-0', 0, 10_000)],
  ])
  finds(t, 'trimmed', [
    [
      'past the position',
      { position: '5-0', length: 10_000, added: 10_000 },
      stream('9-0', '9-0', 1, 10_004),
    ],
  ])
})

t.test('before Redis 7, a long stream that lost more than half of its entries was reset', async (t) => {
  const long = { position: '5-0', length: 1_000, added: -1 }
  finds(t, 'reset', [
    ['one more than half', long, stream('5-0', '9-0', 499, -1)],
    ['nothing of it was read', { ...long, position: STREAM_START }, stream('1-0', '9-0', 3, -1)],
    ['the shortest that counts', { ...long, length: 201 }, stream('5-0', '9-0', 100, -1)],
    ['emptied', long, stream('', '5-0', 0, -1)],
  ])
  finds(t, undefined, [
    ['half', long, stream('5-0', '9-0', 500, -1)],
    ['a short one', { ...long, length: 200 }, stream('5-0', '9-0', 1, -1)],
    ['a short one, emptied', { ...long, length: 200 }, stream('', '5-0', 0, -1)],
    ['as it was', long, stream('1-0', '5-0', 1_000, -1)],
  ])
  finds(t, 'trimmed', [
    ['half', long, stream('6-0', '9-0', 500, -1)],
    ['a short one', { ...long, length: 200 }, stream('6-0', '9-0', 1, -1)],
  ])
})

t.test('a missing stream has vanished, unless nothing of it was ever read', async (t) => {
  finds(t, 'vanished', [
    ['read before', { position: '5-0', length: 5, added: 5 }, { kind: 'none' }],
    ['at the first check', { position: '0-1' }, { kind: 'none' }],
  ])
  finds(t, undefined, [['not created yet', { position: STREAM_START }, { kind: 'none' }]])
})

t.test('a key of another type is reported, read before or not', async (t) => {
  finds(t, 'other', [
    ['read before', { position: '5-0', length: 5, added: 5 }, { kind: 'other' }],
    ['never read', { position: STREAM_START }, { kind: 'other' }],
  ])
})

t.test('a reader at the start misses no entry that was trimmed before', async (t) => {
  finds(t, undefined, [
    ['trimmed', { position: STREAM_START }, stream('700-0', '900-0', 10, 5_000)],
    [
      'trimmed since the last check',
      { position: STREAM_START, length: 10, added: 10 },
      stream('9-0', '9-0', 1, 12),
    ],
    ['never written to', { position: STREAM_START }, stream('', STREAM_START, 0, 0)],
    ['never written to, before Redis 7', { position: STREAM_START }, stream('', STREAM_START, 0, -1)],
  ])
})
