/** The look at the streams, by the real script on a real Redis; each test has keys and an epoch of its own. */
import t, { type Test } from 'tap'
import { inspectStreamsScript, runScript } from '../../../src/redis/scripts/run-script.ts'
import {
  createGapDetector,
  type StreamGap,
  type WatchedStream,
} from '../../../src/redis/streams/gap-detector.ts'
import { STREAM_START } from '../../../src/redis/streams/stream-position.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { addEntries } from '../../helpers/streams.ts'

// One after another: a flush is a flush for all.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

function setUp(): {
  streams: Map<string, WatchedStream>
  /** Each with that many entries, all of them read. */
  watch(name: string, entries?: number, more?: Partial<WatchedStream>): Promise<[string, WatchedStream]>
  look(): Promise<[key: string, finding: StreamGap][]>
  clockOffset(): Promise<number>
  epochKey: string
  /** How many streams each call of the script was for. */
  asked: number[]
} {
  const prefix = uniquePrefix()
  const epochKey = `${prefix}::epoch`
  const streams = new Map<string, WatchedStream>()
  const asked: number[] = []
  const check = createGapDetector(epochKey, (keys, args) => {
    asked.push(keys.length - 1)
    return runScript(client, inspectStreamsScript, keys, args)
  })
  return {
    streams,
    asked,
    epochKey,
    async watch(name, entries = 0, more = {}) {
      const key = `${prefix}:${name}:events`
      const ids = entries > 0 ? await addEntries(client, key, entries) : []
      const stream = {
        position: ids.at(-1) ?? STREAM_START,
        joined: true,
        broken: false,
        doubtfulSince: undefined,
        ...more,
      }
      streams.set(key, stream)
      return [key, stream]
    },
    look: async () => (await check(streams)).found,
    clockOffset: async () => (await check(streams)).clockOffsetMs,
  }
}

/** Reads all there is, as the reader does between two looks. */
async function readOn(key: string, stream: WatchedStream): Promise<void> {
  const [last] = await client.xrevrange(key, '+', '-', 'COUNT', 1)
  if (last) stream.position = last[0]
}

async function nothingNew(t: Test, look: () => Promise<unknown[]>): Promise<void> {
  t.strictSame(await look(), [], 'and nothing the next time')
}

t.test('nothing is found where nothing is missing, and what was seen is kept', async (t) => {
  const { watch, look, streams } = setUp()
  t.strictSame(await look(), [], 'no streams at all')
  const [key, stream] = await watch('read', 5)
  const [behindKey, behind] = await watch('behind', 5)
  const [, absent] = await watch('absent')
  const [first] = (await client.xrange(behindKey, '-', '+', 'COUNT', 1))[0]!
  behind.position = first
  t.strictSame(await look(), [])
  t.hasStrict(stream, { length: 5, added: 5, broken: false })
  t.strictSame([absent.length, absent.added, absent.position], [undefined, undefined, STREAM_START])
  await addEntries(client, key, 3)
  t.strictSame(await look(), [])
  t.hasStrict(stream, { length: 8, added: 8 })
  t.equal(behind.position, first, 'a place is left where it is')
  t.equal(streams.size, 3)
})

t.test('a stream that is trimmed behind the place has lost nothing', async (t) => {
  const { watch, look } = setUp()
  const [key, stream] = await watch('q', 300)
  await look()
  await client.xtrim(key, 'MAXLEN', '=', 0)
  t.strictSame(await look(), [])
  t.hasStrict(stream, { length: 0, added: 300 })
  await addEntries(client, key, 2)
  await readOn(key, stream)
  t.strictSame(await look(), [])
})

t.test('a stream that is trimmed beyond the place is told, alone and once', async (t) => {
  const { watch, look } = setUp()
  const [key, stream] = await watch('trimmed', 5)
  await watch('other', 5)
  await look()
  await addEntries(client, key, 5)
  await client.xtrim(key, 'MAXLEN', '=', 4)
  t.strictSame(await look(), [[key, 'trimmed']])
  await readOn(key, stream)
  await nothingNew(t, look)
})

t.test('a stream that is trimmed to nothing before it was read is told', async (t) => {
  const { watch, look } = setUp()
  const [key] = await watch('q', 5)
  await addEntries(client, key, 5)
  await client.xtrim(key, 'MAXLEN', '=', 0)
  t.strictSame(await look(), [[key, 'trimmed']], 'at the first look')
})

t.test('a stream that is deleted is told once, and read from its start when it comes again', async (t) => {
  const { watch, look } = setUp()
  const [key, stream] = await watch('deleted', 5)
  await watch('other', 5)
  await look()
  await client.del(key)
  t.strictSame(await look(), [[key, 'vanished']])
  t.strictSame([stream.position, stream.length, stream.added], [STREAM_START, undefined, undefined])
  await nothingNew(t, look)
  await addEntries(client, key, 2)
  await nothingNew(t, look)
  t.equal(stream.position, STREAM_START)
})

t.test('a stream that is deleted and there again is told, whatever its ids are', async (t) => {
  const { watch, look } = setUp()
  const [laterKey, later] = await watch('later', 5)
  const [earlierKey, earlier] = await watch('earlier', 5)
  await look()
  await client.del(laterKey, earlierKey)
  // Not '*': all of this may happen within one millisecond, and then its ids would begin again before the place.
  await client.xadd(laterKey, `${Date.now() + 60_000}-0`, 'event', 'added')
  await client.xadd(earlierKey, '5-0', 'event', 'added')
  const { position } = later
  t.strictSame(await look(), [
    [laterKey, 'reset'],
    [earlierKey, 'reset'],
  ])
  t.equal(later.position, position, 'what is new comes after it')
  t.equal(earlier.position, '5-0', 'or else what comes next would come before it')
  t.hasStrict(earlier, { length: 1, added: 1 })
  await readOn(laterKey, later)
  await nothingNew(t, look)
})

t.test('a flush is told of every stream that was read, though it is there again', async (t) => {
  const { watch, look, epochKey } = setUp()
  const [againKey, again] = await watch('again', 2)
  const [goneKey, gone] = await watch('gone', 2)
  const [neverKey] = await watch('never')
  await watch('not joined', 0, { joined: false })
  await look()
  await client.flushall()
  await addEntries(client, againKey, 5)
  t.strictSame(
    (await look()).map(String).sort(),
    [againKey, goneKey, neverKey].map((key) => `${key},flushed`).sort(),
  )
  t.equal(gone.position, STREAM_START)
  t.hasStrict(again, { length: 5, added: 5 })
  await readOn(againKey, again)
  await nothingNew(t, look)
  t.ok(await client.get(epochKey))
  await client.flushall()
  t.strictSame(
    new Set((await look()).map(([, finding]) => finding)),
    new Set(['flushed']),
    'and the second time',
  )
})

t.test('that another process looks as well, or the first look of all, is no flush', async (t) => {
  const { watch, look, epochKey, streams } = setUp()
  await watch('q', 2)
  const other = createGapDetector(epochKey, (keys, args) =>
    runScript(client, inspectStreamsScript, keys, args),
  )
  t.strictSame((await other(streams)).found, [])
  t.strictSame(await look(), [])
  t.strictSame((await other(streams)).found, [])
  t.strictSame(await look(), [])
  await client.flushall()
  t.strictSame(
    (await other(streams)).found.map(([, finding]) => finding),
    ['flushed'],
  )
  t.strictSame(
    (await look()).map(([, finding]) => finding),
    ['flushed'],
    'each of them tells it',
  )
})

t.test('a key that is no stream is told once, and fails the look at no other', async (t) => {
  const { watch, look } = setUp()
  const [textKey, text] = await watch('text')
  const [listKey, list] = await watch('list', 5)
  const [trimmedKey, trimmed] = await watch('trimmed', 5)
  await look()
  await client.set(textKey, 'x')
  await client.del(listKey)
  await client.lpush(listKey, 'x')
  await addEntries(client, trimmedKey, 5)
  await client.xtrim(trimmedKey, 'MAXLEN', '=', 1)
  t.strictSame(await look(), [
    [textKey, 'other'],
    [listKey, 'other'],
    [trimmedKey, 'trimmed'],
  ])
  t.strictSame([text.broken, list.broken, trimmed.broken], [true, true, false])
  t.strictSame([list.position, list.length, list.added], [STREAM_START, undefined, undefined])
  await readOn(trimmedKey, trimmed)
  await nothingNew(t, look)
  t.ok(text.broken, 'though it is known')

  await client.del(textKey, listKey)
  await addEntries(client, listKey, 1)
  await nothingNew(t, look)
  t.strictSame([text.broken, list.broken], [false, false], 'what is a stream again, or nothing, is read')
  await client.set(textKey, 'x')
  t.strictSame(await look(), [[textKey, 'other']], 'a second time is told as well')
})

t.test('more than a hundred streams are looked at, a hundred at once, each as itself', async (t) => {
  const { watch, look, streams, asked } = setUp()
  for (let i = 0; i < 250; i++) await watch(`q${i}`, 2)
  await look()
  t.strictSame(asked, [100, 100, 50])
  const keys = [...streams.keys()]
  t.ok([...streams.values()].every(({ length, added }) => length === 2 && added === 2))
  for (const i of [0, 99, 100, 199, 200, 249]) await client.del(keys[i]!)
  await client.set(keys[100]!, 'x')
  t.strictSame(
    await look(),
    [0, 99, 100, 199, 200, 249].map((i) => [keys[i], i === 100 ? 'other' : 'vanished']),
  )
  await nothingNew(t, look)
})

t.test('a flush is told of more than a hundred streams', async (t) => {
  const { watch, look, streams } = setUp()
  for (let i = 0; i < 150; i++) await watch(`q${i}`, 2)
  await look()
  await client.flushall()
  const flushed = (await look()).filter(([, finding]) => finding === 'flushed').map(([key]) => key)
  t.strictSame(new Set(flushed), new Set(streams.keys()))
})

t.test('what was trimmed before a read that was doubtful is told, and then there is no doubt', async (t) => {
  const { watch, look } = setUp()
  const [key, stream] = await watch('q', 5)
  const before = stream.position
  await look()
  await addEntries(client, key, 10)
  await client.xtrim(key, 'MAXLEN', '=', 3)
  await readOn(key, stream)
  t.strictSame(await look(), [], 'what was read follows on itself')
  stream.doubtfulSince = before
  t.strictSame(await look(), [[key, 'trimmed']])
  t.equal(stream.doubtfulSince, undefined)
  await nothingNew(t, look)
})

t.test('a doubt that nothing bears out is cleared', async (t) => {
  const { watch, look } = setUp()
  const [key, stream] = await watch('q', 5)
  stream.doubtfulSince = stream.position
  await addEntries(client, key, 10)
  await readOn(key, stream)
  t.strictSame(await look(), [])
  t.equal(stream.doubtfulSince, undefined)
  stream.doubtfulSince = STREAM_START
  t.strictSame(await look(), [], 'before the start nothing is missing')
  t.equal(stream.doubtfulSince, undefined)
})

t.test('how far the clocks differ is told; here there is one clock', async (t) => {
  const { watch, clockOffset } = setUp()
  await watch('q', 1)
  // Half of the time that the look took, at most; the clock of Redis is cut to whole ms.
  const startedAt = performance.now()
  const offsetMs = await clockOffset()
  const elapsedMs = performance.now() - startedAt
  t.ok(Math.abs(offsetMs) <= elapsedMs / 2 + 3, `${offsetMs} ms, after ${elapsedMs} ms`)
})

t.test('the look is taken though the server has lost the script', async (t) => {
  const { watch, look } = setUp()
  const [key] = await watch('q', 2)
  await look()
  await client.script('FLUSH')
  await client.del(key)
  t.strictSame(await look(), [[key, 'vanished']])
})
