/**
 * The gaps that the reader reports when unread entries are lost: trimmed, deleted, flushed, or gone after a
 * restart.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../../src/redis/embedded/embedded-redis.ts'
import { eventually } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { addEntries, eventsSocket, openReader, uniqueStream, untilBlocked } from '../../helpers/streams.ts'

// Serial, because a flush affects every test.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

/** Longer than a gap may stay unreported: a check every 2 s, between reads that block for up to 2 s. */
const GAP_MS = 6_000

t.test(
  'trimming while the connection is down is reported, and the remaining entries are delivered',
  async (t) => {
    const { reader, delivered, gaps } = await openReader(t, redis)
    const [trimmed, other] = [uniqueStream('trimmed'), uniqueStream('other')]
    reader.add(trimmed, '0-0')
    reader.add(other, '0-0')
    const before = await addEntries(client, trimmed, 3)
    await eventually(() => delivered(trimmed).length === 3)
    await untilBlocked(client)
    // One write, so that the reader cannot reconnect in between.
    const socket = await eventsSocket(client)
    const steps = client.pipeline().call('CLIENT', 'KILL', 'ID', socket)
    for (let i = 0; i < 5; i++) steps.xadd(trimmed, '*', 'event', 'added')
    const replies = await steps.xtrim(trimmed, 'MAXLEN', '=', 1).xadd(other, '*', 'event', 'added').exec()
    const last = replies![5]![1] as string
    await eventually(() => delivered(trimmed).at(-1) === last && delivered(other).length === 1)
    t.same(gaps, [[trimmed, 'trimmed']], 'once, for this stream only')
    t.same(delivered(trimmed), [...before, last])
    t.ok(reader.isLive(trimmed))
    t.equal(reader.stats().gaps, 1)
  },
)

t.test('trimming behind the reader is no gap', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  const ids = await addEntries(client, stream, 300)
  await eventually(() => delivered(stream).length >= 300)
  await client.xtrim(stream, 'MAXLEN', '=', 0)
  ids.push(...(await addEntries(client, stream, 2)))
  await eventually(() => delivered(stream).length >= 302)
  // A new connection begins with a check.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  ids.push(...(await addEntries(client, stream)))
  await eventually(() => delivered(stream).at(-1) === ids.at(-1))
  t.same(delivered(stream), ids)
  t.same(gaps, [])
})

t.test('trimming during a blocking read is reported', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await addEntries(client, stream, 300)
  await eventually(() => delivered(stream).length >= 300)
  await untilBlocked(client)
  // One transaction that trims as BullMQ does, by whole nodes. The reader wakes after it.
  const burst = client.multi()
  for (let i = 0; i < 1_000; i++) burst.xadd(stream, 'MAXLEN', '~', 300, '*', 'event', 'added')
  const replies = (await burst.exec())!
  await eventually(() => delivered(stream).at(-1) === replies.at(-1)![1])
  t.ok(delivered(stream).length < 1_300, 'entries were lost')
  await eventually(() => gaps.length > 0, 1_000)
  t.same(gaps, [[stream, 'trimmed']])
})

t.test('a flush is reported within 5 s for every stream, even if the stream exists again', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const [again, gone] = [uniqueStream('again'), uniqueStream('gone')]
  await addEntries(client, again, 2)
  await addEntries(client, gone, 2)
  reader.add(again, '0-0')
  reader.add(gone, '0-0')
  await eventually(() => delivered(again).length === 2 && delivered(gone).length === 2)
  await untilBlocked(client)
  const flushedAt = performance.now()
  await client.flushall()
  // More entries than before, so that the length does not reveal the flush.
  const ids = await addEntries(client, again, 5)
  await eventually(() => gaps.length >= 2, GAP_MS)
  const elapsedMs = performance.now() - flushedAt
  t.ok(elapsedMs < 5_000, `${Math.round(elapsedMs)} ms`)
  t.same(gaps.map(String).sort(), [`${again},flushed`, `${gone},flushed`])
  await eventually(() => delivered(again).length >= 7)
  t.same(delivered(again).slice(2), ids)
  const [first] = await addEntries(client, gone)
  await eventually(() => delivered(gone).at(-1) === first)
  t.ok(reader.isLive(again) && reader.isLive(gone))
  // The next check reports nothing.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  const [second] = await addEntries(client, gone)
  await eventually(() => delivered(gone).at(-1) === second)
  t.equal(gaps.length, 2)
})

t.test('a deleted stream is reported, and delivered from its new start', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const [deleted, other] = [uniqueStream('deleted'), uniqueStream('other')]
  reader.add(deleted, '0-0')
  reader.add(other, '0-0')
  await addEntries(client, deleted, 3)
  await eventually(() => delivered(deleted).length === 3)
  await client.del(deleted)
  await eventually(() => gaps.length > 0, GAP_MS)
  t.same(gaps, [[deleted, 'vanished']])
  // Low ids, as after the clock was set back, are new entries too.
  await client.xadd(deleted, '5-0', 'event', 'added')
  await client.xadd(deleted, '5-1', 'event', 'added')
  await eventually(() => delivered(deleted).length === 5)
  t.same(delivered(deleted).slice(3), ['5-0', '5-1'])
  t.equal(gaps.length, 1)
})

t.test('a replaced stream is reported as reset, and delivery continues', async (t) => {
  const { reader, delivered, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await addEntries(client, stream, 10)
  await eventually(() => delivered(stream).length === 10)
  // A check has to see the stream before it is replaced.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  const [eleventh] = await addEntries(client, stream)
  await eventually(() => delivered(stream).at(-1) === eleventh)
  const replies = await client.multi().del(stream).xadd(stream, '*', 'event', 'added').exec()
  await eventually(() => gaps.length > 0, GAP_MS)
  t.same(gaps, [[stream, 'reset']])
  const [next] = await addEntries(client, stream)
  await eventually(() => delivered(stream).length >= 13)
  t.same(delivered(stream).slice(11), [replies![1]![1], next])
})

t.test(
  'a stream that lost its end in a failover is reported as reset, and delivered from its new end',
  async (t) => {
    const { reader, delivered, gaps } = await openReader(t, redis)
    const stream = uniqueStream()
    reader.add(stream, '0-0')
    for (const id of ['10-0', '20-0', '30-0']) await client.xadd(stream, id, 'event', 'added')
    await eventually(() => delivered(stream).length === 3)
    await client.multi().del(stream).xadd(stream, '10-0', 'event', 'added').exec()
    await eventually(() => gaps.length > 0, GAP_MS)
    t.same(gaps, [[stream, 'reset']])
    await client.xadd(stream, '15-0', 'event', 'added')
    await eventually(() => delivered(stream).length >= 4)
    t.same(delivered(stream), ['10-0', '20-0', '30-0', '15-0'])
  },
)

t.test(
  'a key of another type is reported once and never live; the other streams are delivered',
  async (t) => {
    const { reader, delivered, gaps } = await openReader(t, redis)
    const [good, wrong] = [uniqueStream('good'), uniqueStream('wrong')]
    await client.set(wrong, 'a text')
    reader.add(good, '0-0')
    await untilBlocked(client)
    reader.add(wrong, '0-0')
    await eventually(() => gaps.length > 0)
    await eventually(() => reader.isLive(good))
    for (let round = 0; round < 3; round++) {
      const [id] = await addEntries(client, good)
      await eventually(() => delivered(good).at(-1) === id)
      t.equal(reader.isLive(wrong), false)
    }
    const third = uniqueStream('third')
    reader.add(third, '0-0')
    const [added] = await addEntries(client, third)
    await eventually(() => delivered(third)[0] === added, 1_500)
    // One or two more checks.
    await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
    const [id] = await addEntries(client, good)
    await eventually(() => delivered(good).at(-1) === id)
    t.same(gaps, [[wrong, 'other']])
    await client.del(wrong)
    const ids = await addEntries(client, wrong, 2)
    await eventually(() => delivered(wrong).length >= 2)
    t.same(delivered(wrong), ids, 'it is delivered once it is a stream')
    t.ok(reader.isLive(wrong))
  },
)

/** A server with its data on disk, which can be restarted on the same socket. */
async function restartable(t: Test) {
  const dataDir = await mkdtemp(join(tmpdir(), 'sluice-restart-'))
  const path = process.env['PATH'] ?? ''
  let server: EmbeddedRedis
  const start = async () => {
    server = await startEmbeddedRedis({ dataDir, cacheDir: '.redis', path, log: () => {} })
    return server.socket
  }
  const socket = await start()
  const client = new Redis({ path: socket, maxRetriesPerRequest: null })
  client.on('error', () => {})
  t.teardown(async () => {
    client.disconnect()
    await server.close()
    await rm(dataDir, { recursive: true, force: true })
  })
  return { socket, client, start, dataDir, stop: () => server.close() }
}

t.test('after a restart of Redis with its data, delivery continues', async (t) => {
  const server = await restartable(t)
  const { reader, delivered, gaps, reconnects } = await openReader(t, server)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  const ids = await addEntries(server.client, stream, 3)
  await eventually(() => delivered(stream).length === 3)
  await server.stop()
  await eventually(() => !reader.isLive(stream))
  t.equal(reader.stats().status, 'degraded')
  await server.start()
  ids.push(...(await addEntries(server.client, stream, 2)))
  await eventually(() => delivered(stream).length >= 5 && reader.isLive(stream))
  t.same(delivered(stream), ids)
  t.equal(reconnects(), 1)
  t.same(gaps, [])
})

t.test('a restart of Redis without its data is reported', async (t) => {
  const server = await restartable(t)
  const { reader, delivered, gaps } = await openReader(t, server)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await addEntries(server.client, stream, 3)
  await eventually(() => delivered(stream).length === 3)
  await server.stop()
  await rm(join(server.dataDir, 'appendonlydir'), { recursive: true })
  await server.start()
  const ids = await addEntries(server.client, stream, 2)
  await eventually(() => delivered(stream).length >= 5 && reader.isLive(stream))
  t.same(gaps, [[stream, 'flushed']])
  t.same(delivered(stream).slice(3), ids)
})
