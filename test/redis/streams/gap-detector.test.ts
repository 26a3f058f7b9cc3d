/** Gap checks with the real script on a real Redis. Each test has its own keys and flush marker. */
import t, { type Test } from 'tap'
import { inspectStreams } from '../../../src/redis/scripts/inspect-streams.ts'
import {
  createGapDetector,
  type StreamGap,
  type WatchedStream,
} from '../../../src/redis/streams/gap-detector.ts'
import { STREAM_START } from '../../../src/redis/streams/stream-position.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { addEntries } from '../../helpers/streams.ts'

// Serial, because a flush affects every test.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

function setUp(): {
  streams: Map<string, WatchedStream>
  /** Adds a stream with that many entries, all of them read. */
  watch(name: string, entries?: number, more?: Partial<WatchedStream>): Promise<[string, WatchedStream]>
  check(): Promise<[stream: string, gap: StreamGap][]>
  clockOffset(): Promise<number>
  epochKey: string
  /** How many streams each inspection covered. */
  inspected: number[]
} {
  const prefix = uniquePrefix()
  const epochKey = `${prefix}::epoch`
  const streams = new Map<string, WatchedStream>()
  const inspected: number[] = []
  const checkStreams = createGapDetector((keys) => {
    inspected.push(keys.length)
    return inspectStreams(client, epochKey, keys)
  })
  return {
    streams,
    inspected,
    epochKey,
    async watch(name, entries = 0, more = {}) {
      const key = `${prefix}:${name}:events`
      const ids = entries > 0 ? await addEntries(client, key, entries) : []
      const stream = {
        position: ids.at(-1) ?? STREAM_START,
        joined: true,
        broken: false,
        eventless: false,
        keptChecks: 0,
        unverifiedSince: undefined,
        ...more,
      }
      streams.set(key, stream)
      return [key, stream]
    },
    check: async () => (await checkStreams(streams)).gaps,
    clockOffset: async () => (await checkStreams(streams)).clockOffsetMs,
  }
}

/** Moves to the end of the stream, as the reader does between two checks. */
async function readToEnd(key: string, stream: WatchedStream): Promise<void> {
  const [last] = await client.xrevrange(key, '+', '-', 'COUNT', 1)
  if (last) stream.position = last[0]
}

async function reportsNothing(t: Test, check: () => Promise<unknown[]>): Promise<void> {
  t.strictSame(await check(), [], 'the next check reports nothing')
}

t.test('a check without gaps reports nothing and records length and entries added', async (t) => {
  const { watch, check, streams } = setUp()
  t.strictSame(await check(), [], 'no streams')
  const [key, stream] = await watch('read', 5)
  const [behindKey, behind] = await watch('behind', 5)
  const [, absent] = await watch('absent')
  const [first] = (await client.xrange(behindKey, '-', '+', 'COUNT', 1))[0]!
  behind.position = first
  t.strictSame(await check(), [])
  t.hasStrict(stream, { length: 5, added: 5, broken: false })
  t.strictSame([absent.length, absent.added, absent.position], [undefined, undefined, STREAM_START])
  await addEntries(client, key, 3)
  t.strictSame(await check(), [])
  t.hasStrict(stream, { length: 8, added: 8 })
  t.equal(behind.position, first, 'the position does not move')
  t.equal(streams.size, 3)
})

t.test('trimming behind the position is no gap', async (t) => {
  const { watch, check } = setUp()
  const [key, stream] = await watch('q', 300)
  await check()
  await client.xtrim(key, 'MAXLEN', '=', 0)
  t.strictSame(await check(), [])
  t.hasStrict(stream, { length: 0, added: 300 })
  await addEntries(client, key, 2)
  await readToEnd(key, stream)
  t.strictSame(await check(), [])
})

t.test('trimming past the position is reported once, for that stream only', async (t) => {
  const { watch, check } = setUp()
  const [key, stream] = await watch('trimmed', 5)
  await watch('other', 5)
  await check()
  await addEntries(client, key, 5)
  await client.xtrim(key, 'MAXLEN', '=', 4)
  t.strictSame(await check(), [[key, 'trimmed']])
  await readToEnd(key, stream)
  await reportsNothing(t, check)
})

t.test('trimming all entries before they were read is reported', async (t) => {
  const { watch, check } = setUp()
  const [key] = await watch('q', 5)
  await addEntries(client, key, 5)
  await client.xtrim(key, 'MAXLEN', '=', 0)
  t.strictSame(await check(), [[key, 'trimmed']], 'at the first check')
})

t.test('a deleted stream is reported once and read from its start when it exists again', async (t) => {
  const { watch, check } = setUp()
  const [key, stream] = await watch('deleted', 5)
  await watch('other', 5)
  await check()
  await client.del(key)
  t.strictSame(await check(), [[key, 'vanished']])
  t.strictSame([stream.position, stream.length, stream.added], [STREAM_START, undefined, undefined])
  await reportsNothing(t, check)
  await addEntries(client, key, 2)
  await reportsNothing(t, check)
  t.equal(stream.position, STREAM_START)
})

t.test(
  'a stream that was deleted and created again is reported, with later ids and with earlier ones',
  async (t) => {
    const { watch, check } = setUp()
    const [laterKey, later] = await watch('later', 5)
    const [earlierKey, earlier] = await watch('earlier', 5)
    await check()
    await client.del(laterKey, earlierKey)
    // With '*' all of this could happen within one millisecond, and the new ids would start before the
    // position.
    await client.xadd(laterKey, `${Date.now() + 60_000}-0`, 'event', 'added')
    await client.xadd(earlierKey, '5-0', 'event', 'added')
    const { position } = later
    t.strictSame(await check(), [
      [laterKey, 'reset'],
      [earlierKey, 'reset'],
    ])
    t.equal(later.position, position, 'new entries come after it')
    t.equal(earlier.position, '5-0', 'the next entries come after the last one, not after the old position')
    t.hasStrict(earlier, { length: 1, added: 1 })
    await readToEnd(laterKey, later)
    await reportsNothing(t, check)
  },
)

t.test('a flush is reported for every stream in the read, even if the stream exists again', async (t) => {
  const { watch, check, epochKey } = setUp()
  const [againKey, again] = await watch('again', 2)
  const [goneKey, gone] = await watch('gone', 2)
  const [neverKey] = await watch('never')
  await watch('not joined', 0, { joined: false })
  await check()
  await client.flushall()
  await addEntries(client, againKey, 5)
  t.strictSame(
    (await check()).map(String).sort(),
    [againKey, goneKey, neverKey].map((key) => `${key},flushed`).sort(),
  )
  t.equal(gone.position, STREAM_START)
  t.hasStrict(again, { length: 5, added: 5 })
  await readToEnd(againKey, again)
  await reportsNothing(t, check)
  t.ok(await client.get(epochKey))
  await client.flushall()
  t.strictSame(new Set((await check()).map(([, gap]) => gap)), new Set(['flushed']), 'also the second time')
})

t.test('the first check, and the checks of another process, report no flush', async (t) => {
  const { watch, check, epochKey, streams } = setUp()
  await watch('q', 2)
  const other = createGapDetector((keys) => inspectStreams(client, epochKey, keys))
  t.strictSame((await other(streams)).gaps, [])
  t.strictSame(await check(), [])
  t.strictSame((await other(streams)).gaps, [])
  t.strictSame(await check(), [])
  await client.flushall()
  t.strictSame(
    (await other(streams)).gaps.map(([, gap]) => gap),
    ['flushed'],
  )
  t.strictSame(
    (await check()).map(([, gap]) => gap),
    ['flushed'],
    'each process reports it',
  )
})

t.test('a key of another type is reported once and does not affect the other streams', async (t) => {
  const { watch, check } = setUp()
  const [textKey, text] = await watch('text')
  const [listKey, list] = await watch('list', 5)
  const [trimmedKey, trimmed] = await watch('trimmed', 5)
  await check()
  await client.set(textKey, 'x')
  await client.del(listKey)
  await client.lpush(listKey, 'x')
  await addEntries(client, trimmedKey, 5)
  await client.xtrim(trimmedKey, 'MAXLEN', '=', 1)
  t.strictSame(await check(), [
    [textKey, 'other'],
    [listKey, 'other'],
    [trimmedKey, 'trimmed'],
  ])
  t.strictSame([text.broken, list.broken, trimmed.broken], [true, true, false])
  t.strictSame([list.position, list.length, list.added], [STREAM_START, undefined, undefined])
  await readToEnd(trimmedKey, trimmed)
  await reportsNothing(t, check)
  t.ok(text.broken, 'it stays excluded from the read')

  await client.del(textKey, listKey)
  await addEntries(client, listKey, 1)
  await reportsNothing(t, check)
  t.strictSame(
    [text.broken, list.broken],
    [false, false],
    'a key that is a stream again, or missing, is read',
  )
  await client.set(textKey, 'x')
  t.strictSame(await check(), [[textKey, 'other']], 'the second time is reported as well')
})

t.test(
  'more than a hundred streams are inspected a hundred at a time, each with its own result',
  async (t) => {
    const { watch, check, streams, inspected } = setUp()
    for (let i = 0; i < 250; i++) await watch(`q${i}`, 2)
    await check()
    t.strictSame(inspected, [100, 100, 50])
    const keys = [...streams.keys()]
    t.ok([...streams.values()].every(({ length, added }) => length === 2 && added === 2))
    for (const i of [0, 99, 100, 199, 200, 249]) await client.del(keys[i]!)
    await client.set(keys[100]!, 'x')
    t.strictSame(
      await check(),
      [0, 99, 100, 199, 200, 249].map((i) => [keys[i], i === 100 ? 'other' : 'vanished']),
    )
    await reportsNothing(t, check)
  },
)

t.test('a flush is reported for more than a hundred streams', async (t) => {
  const { watch, check, streams } = setUp()
  for (let i = 0; i < 150; i++) await watch(`q${i}`, 2)
  await check()
  await client.flushall()
  const flushed = (await check()).filter(([, gap]) => gap === 'flushed').map(([key]) => key)
  t.strictSame(new Set(flushed), new Set(streams.keys()))
})

t.test('trimming before an unverified read is reported once', async (t) => {
  const { watch, check } = setUp()
  const [key, stream] = await watch('q', 5)
  const before = stream.position
  await check()
  await addEntries(client, key, 10)
  await client.xtrim(key, 'MAXLEN', '=', 3)
  await readToEnd(key, stream)
  t.strictSame(await check(), [], 'the last position alone shows no gap')
  stream.unverifiedSince = before
  t.strictSame(await check(), [[key, 'trimmed']])
  t.equal(stream.unverifiedSince, undefined)
  await reportsNothing(t, check)
})

t.test('an unverified read without a gap is verified', async (t) => {
  const { watch, check } = setUp()
  const [key, stream] = await watch('q', 5)
  stream.unverifiedSince = stream.position
  await addEntries(client, key, 10)
  await readToEnd(key, stream)
  t.strictSame(await check(), [])
  t.equal(stream.unverifiedSince, undefined)
  stream.unverifiedSince = STREAM_START
  t.strictSame(await check(), [], 'no entry is missing before the start')
  t.equal(stream.unverifiedSince, undefined)
})

t.test('the clock offset is measured; here both clocks are the same', async (t) => {
  const { watch, clockOffset } = setUp()
  await watch('q', 1)
  // The error is at most half of the round trip. Redis' clock is truncated to whole ms.
  const startedAt = performance.now()
  const startedDate = Date.now()
  const offsetMs = (await clockOffset()) - (startedAt - startedDate)
  const elapsedMs = performance.now() - startedAt
  t.ok(Math.abs(offsetMs) <= elapsedMs / 2 + 3, `${offsetMs} ms, after ${elapsedMs} ms`)
})

t.test('a check works after the server has lost the script', async (t) => {
  const { watch, check } = setUp()
  const [key] = await watch('q', 2)
  await check()
  await client.script('FLUSH')
  await client.del(key)
  t.strictSame(await check(), [[key, 'vanished']])
})
