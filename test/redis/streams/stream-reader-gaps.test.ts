/** What the reader says when entries are gone that it has not read: trimmed, deleted, flushed, restarted without data. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../../src/redis/embedded/embedded-redis.ts'
import { eventually } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { addEntries, eventsSocket, openReader, uniqueStream, untilBlocked } from '../../helpers/streams.ts'

// One after another: a flush is a flush for all.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

/** Longer than it may take until a gap is told: a look each 2 s, between reads of up to 2 s. */
const GAP_MS = 6_000

t.test(
  'entries that were trimmed while the connection was away are told, and the rest is heard',
  async (t) => {
    const { reader, heard, gaps } = await openReader(t, redis)
    const [trimmed, other] = [uniqueStream('trimmed'), uniqueStream('other')]
    reader.add(trimmed, '0-0')
    reader.add(other, '0-0')
    const before = await addEntries(client, trimmed, 3)
    await eventually(() => heard(trimmed).length === 3)
    await untilBlocked(client)
    // One write, so that the reader cannot be back in between.
    const socket = await eventsSocket(client)
    const steps = client.pipeline().call('CLIENT', 'KILL', 'ID', socket)
    for (let i = 0; i < 5; i++) steps.xadd(trimmed, '*', 'event', 'added')
    const replies = await steps.xtrim(trimmed, 'MAXLEN', '=', 1).xadd(other, '*', 'event', 'added').exec()
    const last = replies![5]![1] as string
    await eventually(() => heard(trimmed).at(-1) === last && heard(other).length === 1)
    t.same(gaps, [[trimmed, 'trimmed']], 'once, and of this stream alone')
    t.same(heard(trimmed), [...before, last])
    t.ok(reader.isLive(trimmed))
    t.equal(reader.stats().gaps, 1)
  },
)

t.test('entries that were trimmed behind the reader are no gap', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  const ids = await addEntries(client, stream, 300)
  await eventually(() => heard(stream).length >= 300)
  await client.xtrim(stream, 'MAXLEN', '=', 0)
  ids.push(...(await addEntries(client, stream, 2)))
  await eventually(() => heard(stream).length >= 302)
  // Until a look has been had: the connection that is made anew has one first.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  ids.push(...(await addEntries(client, stream)))
  await eventually(() => heard(stream).at(-1) === ids.at(-1))
  t.same(heard(stream), ids)
  t.same(gaps, [])
})

t.test('entries that were trimmed before a read that was under way are told', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await addEntries(client, stream, 300)
  await eventually(() => heard(stream).length >= 300)
  await untilBlocked(client)
  // As one, and as BullMQ trims: by whole nodes. The reader wakes when it is over.
  const burst = client.multi()
  for (let i = 0; i < 1_000; i++) burst.xadd(stream, 'MAXLEN', '~', 300, '*', 'event', 'added')
  const replies = (await burst.exec())!
  await eventually(() => heard(stream).at(-1) === replies.at(-1)![1])
  t.ok(heard(stream).length < 1_300, 'some were lost indeed')
  await eventually(() => gaps.length > 0, 1_000)
  t.same(gaps, [[stream, 'trimmed']])
})

t.test('a flush of the database is told within 5 s, of every stream, though it is there again', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const [again, gone] = [uniqueStream('again'), uniqueStream('gone')]
  await addEntries(client, again, 2)
  await addEntries(client, gone, 2)
  reader.add(again, '0-0')
  reader.add(gone, '0-0')
  await eventually(() => heard(again).length === 2 && heard(gone).length === 2)
  await untilBlocked(client)
  const flushedAt = performance.now()
  await client.flushall()
  // More than there had been: by its length it might be the same stream.
  const ids = await addEntries(client, again, 5)
  await eventually(() => gaps.length >= 2, GAP_MS)
  const elapsedMs = performance.now() - flushedAt
  t.ok(elapsedMs < 5_000, `${Math.round(elapsedMs)} ms`)
  t.same(gaps.map(String).sort(), [`${again},flushed`, `${gone},flushed`])
  await eventually(() => heard(again).length >= 7)
  t.same(heard(again).slice(2), ids)
  const [first] = await addEntries(client, gone)
  await eventually(() => heard(gone).at(-1) === first)
  t.ok(reader.isLive(again) && reader.isLive(gone))
  // The look after that finds nothing new to tell.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  const [second] = await addEntries(client, gone)
  await eventually(() => heard(gone).at(-1) === second)
  t.equal(gaps.length, 2)
})

t.test('a stream that is deleted is told, and heard from its new beginning', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const [deleted, other] = [uniqueStream('deleted'), uniqueStream('other')]
  reader.add(deleted, '0-0')
  reader.add(other, '0-0')
  await addEntries(client, deleted, 3)
  await eventually(() => heard(deleted).length === 3)
  await client.del(deleted)
  await eventually(() => gaps.length > 0, GAP_MS)
  t.same(gaps, [[deleted, 'vanished']])
  // Ids that a clock set back would give are new ones all the same.
  await client.xadd(deleted, '5-0', 'event', 'added')
  await client.xadd(deleted, '5-1', 'event', 'added')
  await eventually(() => heard(deleted).length === 5)
  t.same(heard(deleted).slice(3), ['5-0', '5-1'])
  t.equal(gaps.length, 1)
})

t.test('a stream that another has replaced is told as reset, and heard on', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await addEntries(client, stream, 10)
  await eventually(() => heard(stream).length === 10)
  // What it held has to have been seen by a look.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  const [eleventh] = await addEntries(client, stream)
  await eventually(() => heard(stream).at(-1) === eleventh)
  const replies = await client.multi().del(stream).xadd(stream, '*', 'event', 'added').exec()
  await eventually(() => gaps.length > 0, GAP_MS)
  t.same(gaps, [[stream, 'reset']])
  const [next] = await addEntries(client, stream)
  await eventually(() => heard(stream).length >= 13)
  t.same(heard(stream).slice(11), [replies![1]![1], next])
})

t.test(
  'a stream whose end was lost in a failover is told as reset, and heard from where it is',
  async (t) => {
    const { reader, heard, gaps } = await openReader(t, redis)
    const stream = uniqueStream()
    reader.add(stream, '0-0')
    for (const id of ['10-0', '20-0', '30-0']) await client.xadd(stream, id, 'event', 'added')
    await eventually(() => heard(stream).length === 3)
    await client.multi().del(stream).xadd(stream, '10-0', 'event', 'added').exec()
    await eventually(() => gaps.length > 0, GAP_MS)
    t.same(gaps, [[stream, 'reset']])
    await client.xadd(stream, '15-0', 'event', 'added')
    await eventually(() => heard(stream).length >= 4)
    t.same(heard(stream), ['10-0', '20-0', '30-0', '15-0'])
  },
)

t.test('a key that is no stream is told once and is never live; the others are heard', async (t) => {
  const { reader, heard, gaps } = await openReader(t, redis)
  const [good, wrong] = [uniqueStream('good'), uniqueStream('wrong')]
  await client.set(wrong, 'a text')
  reader.add(good, '0-0')
  await untilBlocked(client)
  reader.add(wrong, '0-0')
  await eventually(() => gaps.length > 0)
  await eventually(() => reader.isLive(good))
  for (let round = 0; round < 3; round++) {
    const [id] = await addEntries(client, good)
    await eventually(() => heard(good).at(-1) === id)
    t.equal(reader.isLive(wrong), false)
  }
  const third = uniqueStream('third')
  reader.add(third, '0-0')
  const [added] = await addEntries(client, third)
  await eventually(() => heard(third)[0] === added, 1_500)
  // Another look or two.
  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  const [id] = await addEntries(client, good)
  await eventually(() => heard(good).at(-1) === id)
  t.same(gaps, [[wrong, 'other']])
  await client.del(wrong)
  const ids = await addEntries(client, wrong, 2)
  await eventually(() => heard(wrong).length >= 2)
  t.same(heard(wrong), ids, 'once it is a stream it is heard')
  t.ok(reader.isLive(wrong))
})

/** A server that keeps what it is told on disk, and may be ended and started again at the same place. */
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

t.test('a restart of Redis with its data goes on where it was', async (t) => {
  const server = await restartable(t)
  const { reader, heard, gaps, reconnects } = await openReader(t, server)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  const ids = await addEntries(server.client, stream, 3)
  await eventually(() => heard(stream).length === 3)
  await server.stop()
  await eventually(() => !reader.isLive(stream))
  t.equal(reader.stats().status, 'degraded')
  await server.start()
  ids.push(...(await addEntries(server.client, stream, 2)))
  await eventually(() => heard(stream).length >= 5 && reader.isLive(stream))
  t.same(heard(stream), ids)
  t.equal(reconnects(), 1)
  t.same(gaps, [])
})

t.test('a restart of Redis without its data is told', async (t) => {
  const server = await restartable(t)
  const { reader, heard, gaps } = await openReader(t, server)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await addEntries(server.client, stream, 3)
  await eventually(() => heard(stream).length === 3)
  await server.stop()
  await rm(join(server.dataDir, 'appendonlydir'), { recursive: true })
  await server.start()
  const ids = await addEntries(server.client, stream, 2)
  await eventually(() => heard(stream).length >= 5 && reader.isLive(stream))
  t.same(gaps, [[stream, 'flushed']])
  t.same(heard(stream).slice(3), ids)
})
