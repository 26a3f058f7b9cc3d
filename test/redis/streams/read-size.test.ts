/** How many entries a read may return: few before their size is known, more while they are small, fewer once they are large. */
import t from 'tap'
import { firstCount, MAX_ENTRIES, nextCount, sizeOfReply } from '../../../src/redis/streams/read-size.ts'
import { eventually } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { openReader, uniqueStream } from '../../helpers/streams.ts'

const MIB = 1_048_576

t.test('the first read of many streams takes few entries of each', async (t) => {
  t.equal(firstCount(1), 50)
  t.equal(firstCount(100), 10)
  t.equal(firstCount(10_000), 1)
})

t.test('full reads of small entries grow, to a thousand', async (t) => {
  let count = firstCount(1)
  const counts = []
  for (let read = 0; read < 4; read++) {
    count = nextCount(count, { bytes: 100 * count, entryCount: count }, 8 * MIB)
    counts.push(count)
  }
  t.same(counts, [200, 800, MAX_ENTRIES, MAX_ENTRIES])
})

t.test('a reply that is too large makes the next one small, and it stays so', async (t) => {
  const count = nextCount(1_000, { bytes: 1_000 * MIB, entryCount: 1_000 }, 8 * MIB)
  t.equal(count, 4)
  t.equal(nextCount(count, { bytes: 4 * MIB, entryCount: 4 }, 8 * MIB), 4)
  t.equal(nextCount(count, { bytes: 1 * MIB, entryCount: 1 }, 8 * MIB), 4, 'a read that is not full')
  t.equal(nextCount(1, { bytes: 100 * MIB, entryCount: 1 }, 8 * MIB), 1, 'never less than one')
})

t.test('reads that are not full shrink to the size of the first', async (t) => {
  let count = MAX_ENTRIES
  for (let read = 0; read < 50; read++) count = nextCount(count, { bytes: 100, entryCount: 1 }, 8 * MIB)
  t.equal(count, 50)
})

t.test('the size of a reply counts every field', async (t) => {
  const reply: [string, [string, string[]][]][] = [
    ['a', [['1-0', ['event', 'added']]]],
    [
      'b',
      [
        ['1-0', ['x', 'yz']],
        ['2-0', []],
      ],
    ],
    ['c', []],
  ]
  t.same(sizeOfReply(reply), { bytes: 13, entryCount: 2 })
})

t.test('a backlog of large entries is read in replies of a bounded size', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const stream = uniqueStream()
  const large = 'x'.repeat(MIB)
  for (let i = 0; i < 100; i++)
    await redis.client.xadd(stream, '*', 'event', 'completed', 'returnvalue', large)
  let perRead: number[] = []
  let before = 0
  const { reader, delivered } = await openReader(t, redis, (key) => {
    perRead = [...perRead, delivered(key).length - before]
    before = delivered(key).length
  })
  reader.add(stream, '0-0')
  await eventually(() => delivered(stream).length === 100)
  t.ok(perRead[0]! <= 50, `${perRead}`)
  t.ok(
    perRead.slice(1).every((count) => count <= 8),
    `${perRead}`,
  )
})
