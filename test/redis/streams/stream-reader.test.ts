/** The stream reader without faults: what it delivers, how soon, and how many commands that costs. */
import t from 'tap'
import { eventually } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import {
  addEntries,
  callsByCommand,
  callsWithin,
  openReader,
  readCalls,
  uniqueStream,
  untilBlocked,
} from '../../helpers/streams.ts'

// Serial, because each test reads the server's counters.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

t.test('entries after the position are delivered once and in order, earlier ones never', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  const early = await addEntries(client, stream, 20)
  reader.add(stream, early[9]!)
  await eventually(() => delivered(stream).length > 0)
  const late: string[] = []
  for (let i = 0; i < 30; i++) late.push(...(await addEntries(client, stream, 1 + (i % 7))))
  const expected = [...early.slice(10), ...late]
  await eventually(() => delivered(stream).length >= expected.length)
  // A last entry: anything delivered twice would arrive before it.
  expected.push(...(await addEntries(client, stream)))
  await eventually(() => delivered(stream).at(-1) === expected.at(-1))
  t.same(delivered(stream), expected)
  t.same(gaps, [])
})

t.test('a stream that does not exist yet is live, and delivered from its first entry', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  t.ok(reader.isLive(stream))
  t.match(reader.stats(), { status: 'live', reason: null, streams: 1, entries: 0 })
  const ids = await addEntries(client, stream, 3)
  await eventually(() => delivered(stream).length >= 3)
  t.same(delivered(stream), ids)
  t.same(gaps, [])
})

t.test('a stream that is added twice continues at its position', async (t) => {
  const { reader, delivered } = await openReader(t, redis)
  const stream = uniqueStream()
  const first = await addEntries(client, stream, 3)
  reader.add(stream, '0-0')
  await eventually(() => delivered(stream).length >= 3)
  reader.add(stream, '0-0')
  const second = await addEntries(client, stream, 2)
  await eventually(() => delivered(stream).length >= 5)
  t.same(delivered(stream), [...first, ...second])
})

t.test('a stream is live once the reader has caught up; an unknown one never is', async (t) => {
  const live: boolean[] = []
  const states: string[] = []
  const { reader, delivered } = await openReader(t, redis, (stream) => {
    live.push(reader.isLive(stream))
    states.push(reader.stats().status)
  })
  const stream = uniqueStream()
  const ids = await addEntries(client, stream, 3_500)
  t.equal(reader.isLive(stream), false)
  t.equal(reader.stats().status, 'idle')
  reader.add(stream, '0-0')
  await eventually(() => delivered(stream).length >= 3_500)
  t.same(delivered(stream), ids)
  t.notOk(live.slice(0, -1).includes(true), 'a full read means that more entries exist')
  await eventually(() => reader.isLive(stream))
  t.ok(live.length <= 8, `${live.length} reads, of which the first are small`)
  t.ok(states.includes('degraded'))
  t.equal(states.at(-1), 'live')
  t.equal(reader.isLive(uniqueStream()), false)
  reader.remove(stream)
  t.equal(reader.isLive(stream), false)
  t.equal(reader.stats().status, 'idle')
})

t.test('a hundred streams cost as many commands as one', async (t) => {
  const { reader, delivered } = await openReader(t, redis)
  const streams = Array.from({ length: 100 }, (_, i) => uniqueStream(`q${i}`))
  const before = await readCalls(client)
  for (const stream of streams) reader.add(stream, '0-0')
  await untilBlocked(client)
  t.ok(streams.every((stream) => reader.isLive(stream)))
  const all = client.multi()
  for (const stream of streams) all.xadd(stream, '*', 'event', 'added')
  await all.exec()
  await eventually(() => streams.every((stream) => delivered(stream).length === 1))
  // Catching up, the first blocking read, and a few reads for the entries.
  const reads = (await readCalls(client)) - before
  t.ok(reads <= 10, `${reads} reads`)
  t.match(reader.stats(), { streams: 100, entries: 100, gaps: 0, resets: 0 })
  // Each read blocks for 2 s and is followed by one check of the streams.
  await untilBlocked(client)
  const calls = await callsWithin(client, 4_000)
  t.ok(calls['xread']! >= 1 && calls['xread']! <= 4, `${calls['xread']} reads in 4 s without entries`)
  t.ok(calls['evalsha']! <= 4, `${calls['evalsha']} checks in 4 s without entries`)
})

t.test('single entries cost one read each, and no check of the streams', async (t) => {
  const { reader, delivered, sent } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  const began = performance.now()
  for (let i = 1; i <= 40; i++) {
    await addEntries(client, stream)
    await eventually(() => delivered(stream).length === i)
  }
  const elapsedMs = performance.now() - began
  t.ok(reader.stats().reads >= 40)
  // One at the start, then one every 2 s.
  t.ok(sent['checkStreams']! <= 2 + elapsedMs / 2_000, `${sent['checkStreams']} checks`)
})

t.test('a stream that is added during a blocking read is delivered at once', async (t) => {
  const { reader, delivered, sent } = await openReader(t, redis)
  reader.add(uniqueStream('first'), '0-0')
  const times: number[] = []
  for (let round = 0; round < 7; round++) {
    const stream = uniqueStream(`q${round}`)
    await addEntries(client, stream)
    await untilBlocked(client)
    const addedAt = performance.now()
    reader.add(stream, '0-0')
    await eventually(() => delivered(stream).length === 1)
    times.push(performance.now() - addedAt)
  }
  // The read would block for 2 s. The median tolerates a machine that is busy for a moment.
  t.ok(times.sort((a, b) => a - b)[3]! < 200, `${times.map(Math.round)} ms`)
  t.ok(sent['unblockEvents']! >= 7)
})

t.test('streams that are added together interrupt the read once', async (t) => {
  const { reader, delivered, sent } = await openReader(t, redis)
  reader.add(uniqueStream('first'), '0-0')
  const streams = Array.from({ length: 50 }, (_, i) => uniqueStream(`q${i}`))
  for (const stream of streams) await addEntries(client, stream)
  await untilBlocked(client)
  const before = await callsByCommand(client)
  for (const stream of streams) reader.add(stream, '0-0')
  await eventually(() => streams.every((stream) => delivered(stream).length === 1))
  const after = await callsByCommand(client)
  t.equal(after['client|unblock']! - (before['client|unblock'] ?? 0), 1)
  t.equal(sent['unblockEvents'], 1)
})

t.test('a removed stream is not delivered; the others are', async (t) => {
  const { reader, delivered } = await openReader(t, redis)
  const [left, kept] = [uniqueStream('left'), uniqueStream('kept')]
  reader.add(left, '0-0')
  reader.add(kept, '0-0')
  await untilBlocked(client)
  reader.remove(left)
  await addEntries(client, left, 3)
  const ids = await addEntries(client, kept, 3)
  await eventually(() => delivered(kept).length >= 3)
  t.same(delivered(kept), ids)
  t.same(delivered(left), [])
  t.equal(reader.stats().streams, 1)
})

t.test('without streams, no command is sent', async (t) => {
  const { reader, delivered } = await openReader(t, redis)
  t.same(await callsWithin(client, 500), {}, 'before the first stream')
  const streams = [uniqueStream('a'), uniqueStream('b')]
  for (const stream of streams) reader.add(stream, '0-0')
  await untilBlocked(client)
  t.not((await callsWithin(client, 3_000))['xread'], undefined, 'the counters show an active reader')
  const [first] = await addEntries(client, streams[0]!)
  await eventually(() => delivered(streams[0]!)[0] === first)
  await untilBlocked(client)
  for (const stream of streams) reader.remove(stream)
  // The read in progress is interrupted; it does not block for its 2 s.
  await eventually(async () => (await client.info('clients')).includes('\nblocked_clients:0'), 1_200)
  const ids = await addEntries(client, streams[0]!)
  t.same(await callsWithin(client, 3_000), {})
  t.equal(reader.stats().status, 'idle')
  ids.push(...(await addEntries(client, streams[0]!)))
  reader.add(streams[0]!, first!)
  await eventually(() => delivered(streams[0]!).at(-1) === ids[1])
  t.same(delivered(streams[0]!), [first, ...ids], 'a stream that is added again continues')
})

t.test('a burst of 5,000 entries costs few reads', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  const before = await readCalls(client)
  const began = performance.now()
  const ids: string[] = []
  // Without the pause between reads, each small write would cause one.
  while (ids.length < 5_000) ids.push(...(await addEntries(client, stream, 10)))
  await eventually(() => delivered(stream).length >= 5_000)
  const reads = (await readCalls(client)) - before
  const elapsedMs = performance.now() - began
  t.same(delivered(stream), ids)
  // Four at once, then one every 25 ms, plus a margin for late timers.
  const most = 10 + elapsedMs / 20
  t.ok(reads <= most, `${reads} reads in ${Math.round(elapsedMs)} ms`)
  t.ok(most < 250, `500 writes in ${Math.round(elapsedMs)} ms: too slow to measure`)
  t.same(gaps, [])
  t.ok(reader.stats().lagMs < 2_000)
})
