/** The one blocking read while all is well: what it delivers, how soon, and at what cost in commands. */
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

// One after another: the server's counters are theirs in turn.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

t.test('what comes after a place is delivered once, in order, and nothing before it', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  const early = await addEntries(client, stream, 20)
  reader.add(stream, early[9]!)
  await eventually(() => heard(stream).length > 0)
  const late: string[] = []
  for (let i = 0; i < 30; i++) late.push(...(await addEntries(client, stream, 1 + (i % 7))))
  const expected = [...early.slice(10), ...late]
  await eventually(() => heard(stream).length >= expected.length)
  // One more, so that anything delivered twice would have come before it.
  expected.push(...(await addEntries(client, stream)))
  await eventually(() => heard(stream).at(-1) === expected.at(-1))
  t.same(heard(stream), expected)
  t.same(gaps, [])
})

t.test('a stream that does not exist yet is live, and heard from its first entry', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  t.ok(reader.isLive(stream))
  t.match(reader.stats(), { status: 'live', reason: null, streams: 1, entries: 0 })
  const ids = await addEntries(client, stream, 3)
  await eventually(() => heard(stream).length >= 3)
  t.same(heard(stream), ids)
  t.same(gaps, [])
})

t.test('a stream that is wanted twice goes on from where it is', async (t) => {
  const { reader, heard } = await openReader(t, redis)
  const stream = uniqueStream()
  const first = await addEntries(client, stream, 3)
  reader.add(stream, '0-0')
  await eventually(() => heard(stream).length >= 3)
  reader.add(stream, '0-0')
  const second = await addEntries(client, stream, 2)
  await eventually(() => heard(stream).length >= 5)
  t.same(heard(stream), [...first, ...second])
})

t.test('a stream is live once it has caught up; one that nobody follows never is', async (t) => {
  const live: boolean[] = []
  const states: string[] = []
  const { reader, heard } = await openReader(t, redis, (stream) => {
    live.push(reader.isLive(stream))
    states.push(reader.stats().status)
  })
  const stream = uniqueStream()
  const ids = await addEntries(client, stream, 3_500)
  t.equal(reader.isLive(stream), false)
  t.equal(reader.stats().status, 'idle')
  reader.add(stream, '0-0')
  await eventually(() => heard(stream).length >= 3_500)
  t.same(heard(stream), ids)
  t.same(live, [false, false, false, true], 'a full read says that there is more')
  t.same(states, ['degraded', 'degraded', 'degraded', 'live'])
  t.equal(reader.isLive(uniqueStream()), false)
  reader.remove(stream)
  t.equal(reader.isLive(stream), false)
  t.equal(reader.stats().status, 'idle')
})

t.test('a hundred streams cost the commands of one', async (t) => {
  const { reader, heard } = await openReader(t, redis)
  const streams = Array.from({ length: 100 }, (_, i) => uniqueStream(`q${i}`))
  const before = await readCalls(client)
  for (const stream of streams) reader.add(stream, '0-0')
  await untilBlocked(client)
  t.ok(streams.every((stream) => reader.isLive(stream)))
  const all = client.multi()
  for (const stream of streams) all.xadd(stream, '*', 'event', 'added')
  await all.exec()
  await eventually(() => streams.every((stream) => heard(stream).length === 1))
  // Catching up, the first wait, and the few reads that what happened takes.
  const reads = (await readCalls(client)) - before
  t.ok(reads <= 10, `${reads} reads`)
  t.match(reader.stats(), { streams: 100, entries: 100, gaps: 0, resets: 0 })
  // Each read waits for 2 s, and one look at the streams follows it.
  await untilBlocked(client)
  const calls = await callsWithin(client, 4_000)
  t.ok(calls['xread']! >= 1 && calls['xread']! <= 4, `${calls['xread']} reads in 4 s of silence`)
  t.ok(calls['evalsha']! <= 4, `${calls['evalsha']} looks in 4 s of silence`)
})

t.test('entries that come one by one cost a read each, and no look at the streams', async (t) => {
  const { reader, heard, sent } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  const began = performance.now()
  for (let i = 1; i <= 40; i++) {
    await addEntries(client, stream)
    await eventually(() => heard(stream).length === i)
  }
  const elapsedMs = performance.now() - began
  t.ok(reader.stats().reads >= 40)
  // One at the start, then one each 2 s.
  t.ok(sent['checkStreams']! <= 2 + elapsedMs / 2_000, `${sent['checkStreams']} looks`)
})

t.test('a stream that is added while a read waits is heard at once', async (t) => {
  const { reader, heard, sent } = await openReader(t, redis)
  reader.add(uniqueStream('first'), '0-0')
  const times: number[] = []
  for (let round = 0; round < 7; round++) {
    const stream = uniqueStream(`q${round}`)
    await addEntries(client, stream)
    await untilBlocked(client)
    const addedAt = performance.now()
    reader.add(stream, '0-0')
    await eventually(() => heard(stream).length === 1)
    times.push(performance.now() - addedAt)
  }
  // The wait is 2 s. The median: a machine that does something else for a moment is no fault of ours.
  t.ok(times.sort((a, b) => a - b)[3]! < 200, `${times.map(Math.round)} ms`)
  t.ok(sent['unblockEvents']! >= 7)
})

t.test('streams that are added at the same time end the read once', async (t) => {
  const { reader, heard, sent } = await openReader(t, redis)
  reader.add(uniqueStream('first'), '0-0')
  const streams = Array.from({ length: 50 }, (_, i) => uniqueStream(`q${i}`))
  for (const stream of streams) await addEntries(client, stream)
  await untilBlocked(client)
  const before = await callsByCommand(client)
  for (const stream of streams) reader.add(stream, '0-0')
  await eventually(() => streams.every((stream) => heard(stream).length === 1))
  const after = await callsByCommand(client)
  t.equal(after['client|unblock']! - (before['client|unblock'] ?? 0), 1)
  t.equal(sent['unblockEvents'], 1)
})

t.test('a stream that nobody wants any more is not delivered, the others are', async (t) => {
  const { reader, heard } = await openReader(t, redis)
  const [left, kept] = [uniqueStream('left'), uniqueStream('kept')]
  reader.add(left, '0-0')
  reader.add(kept, '0-0')
  await untilBlocked(client)
  reader.remove(left)
  await addEntries(client, left, 3)
  const ids = await addEntries(client, kept, 3)
  await eventually(() => heard(kept).length >= 3)
  t.same(heard(kept), ids)
  t.same(heard(left), [])
  t.equal(reader.stats().streams, 1)
})

t.test('while nobody wants anything, Redis is asked for nothing', async (t) => {
  const { reader, heard } = await openReader(t, redis)
  t.same(await callsWithin(client, 500), {}, 'nobody has wanted anything yet')
  const streams = [uniqueStream('a'), uniqueStream('b')]
  for (const stream of streams) reader.add(stream, '0-0')
  await untilBlocked(client)
  t.not((await callsWithin(client, 3_000))['xread'], undefined, 'a reader that reads is seen')
  const [first] = await addEntries(client, streams[0]!)
  await eventually(() => heard(streams[0]!)[0] === first)
  await untilBlocked(client)
  for (const stream of streams) reader.remove(stream)
  // The read that has just begun is ended too: it does not linger for its 2 s.
  await eventually(async () => (await client.info('clients')).includes('\nblocked_clients:0'), 1_200)
  const ids = await addEntries(client, streams[0]!)
  t.same(await callsWithin(client, 3_000), {})
  t.equal(reader.stats().status, 'idle')
  ids.push(...(await addEntries(client, streams[0]!)))
  reader.add(streams[0]!, first!)
  await eventually(() => heard(streams[0]!).at(-1) === ids[1])
  t.same(heard(streams[0]!), [first, ...ids], 'and it is heard on when somebody does')
})

t.test('a burst of 5,000 entries costs few reads', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  const before = await readCalls(client)
  const began = performance.now()
  const ids: string[] = []
  // Each small write would wake a reader that reads without a pause.
  while (ids.length < 5_000) ids.push(...(await addEntries(client, stream, 10)))
  await eventually(() => heard(stream).length >= 5_000)
  const reads = (await readCalls(client)) - before
  const elapsedMs = performance.now() - began
  t.same(heard(stream), ids)
  // Four at once and then one each 25 ms, with some room for a clock that is read late.
  const most = 10 + elapsedMs / 20
  t.ok(reads <= most, `${reads} reads in ${Math.round(elapsedMs)} ms`)
  t.ok(most < 250, `500 writes in ${Math.round(elapsedMs)} ms: too slow to tell`)
  t.same(gaps, [])
  t.ok(reader.stats().lagMs < 2_000)
})
