/** The one blocking read when its connection breaks, freezes, is refused or ends. Every fault is really caused. */
import t from 'tap'
import { eventually } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import {
  addEntries,
  callsByCommand,
  callsWithin,
  eventsSocket,
  openReader,
  readCalls,
  uniqueStream,
  untilBlocked,
} from '../../helpers/streams.ts'

// One after another: what is done to the server is done to all who use it.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

const killEvents = async () => client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))

t.test('a connection that is killed loses nothing and repeats nothing', async (t) => {
  const { reader, connections, heard, gaps, reconnects, sent } = await openReader(t, redis)
  const [busy, silent] = [uniqueStream('busy'), uniqueStream('silent')]
  reader.add(busy, '0-0')
  reader.add(silent, '0-0')
  await untilBlocked(client)
  t.equal(reconnects(), 0, 'the first connection is no reconnect')
  const seen: unknown[] = []
  connections.events.client.on('close', () =>
    seen.push([reader.stats().status, reader.stats().reason, reader.isLive(busy), reader.isLive(silent)]),
  )
  const ids: string[] = []
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 30; i++) ids.push(...(await addEntries(client, busy, 5)))
    await killEvents()
    for (let i = 0; i < 30; i++) ids.push(...(await addEntries(client, busy, 5)))
    await eventually(() => heard(busy).length >= ids.length && reader.isLive(busy) && reader.isLive(silent))
  }
  ids.push(...(await addEntries(client, busy)))
  await eventually(() => heard(busy).at(-1) === ids.at(-1))
  t.same(heard(busy), ids)
  const degraded = ['degraded', 'The events connection is lost', false, false]
  t.same(seen, [degraded, degraded, degraded])
  t.match(reader.stats(), { status: 'live', reason: null, gaps: 0 })
  t.equal(reconnects(), 3, 'each reconnect is told, once')
  t.equal(sent['clientId'], 4)
  t.same(gaps, [])
})

t.test('a stream that is added while the connection is away is heard when it is back', async (t) => {
  const { reader, connections, heard } = await openReader(t, redis)
  const [first, second] = [uniqueStream('first'), uniqueStream('second')]
  reader.add(first, '0-0')
  await untilBlocked(client)
  const ids = await addEntries(client, second, 2)
  let liveWhileAway: boolean | undefined
  connections.events.client.once('close', () => {
    reader.add(second, '0-0')
    liveWhileAway = reader.isLive(second)
  })
  await killEvents()
  await eventually(() => heard(second).length >= 2)
  t.equal(liveWhileAway, false)
  t.same(heard(second), ids)
  t.ok(reader.isLive(second))
})

t.test(
  'a Redis that freezes is noticed within 4 s, and heard again without loss when it thaws',
  async (t) => {
    const { reader, heard, gaps, reconnects } = await openReader(t, redis)
    const stream = uniqueStream()
    reader.add(stream, '0-0')
    const before = await addEntries(client, stream, 3)
    await eventually(() => heard(stream).length === 3)
    await untilBlocked(client)
    const pid = Number(/process_id:(\d+)/.exec(await client.info('server'))?.[1])
    process.kill(pid, 'SIGSTOP')
    let meanwhile: Promise<string[]>
    let noticedMs: number
    try {
      const frozenAt = performance.now()
      // They wait in the server's socket.
      meanwhile = addEntries(client, stream, 5)
      await eventually(() => !reader.isLive(stream), 10_000)
      noticedMs = performance.now() - frozenAt
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, 5_000 - noticedMs)))
      t.equal(reader.isLive(stream), false)
      t.match(reader.stats(), { status: 'degraded', resets: 1 })
      t.type(reader.stats().reason, 'string')
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    // 2 s that a read may wait, and 1 s of patience.
    t.ok(noticedMs < 4_000, `${Math.round(noticedMs)} ms`)
    const ids = [...before, ...(await meanwhile)]
    await eventually(() => reader.isLive(stream) && heard(stream).length >= ids.length)
    ids.push(...(await addEntries(client, stream)))
    await eventually(() => heard(stream).at(-1) === ids.at(-1))
    t.same(heard(stream), ids)
    t.equal(reconnects(), 1)
    t.same(gaps, [])
  },
)

t.test('where CLIENT UNBLOCK is forbidden, new streams are heard within a second all the same', async (t) => {
  const { reader, heard, sent } = await openReader(t, redis)
  await client.call('ACL', 'SETUSER', 'default', '-client|unblock')
  t.teardown(() => client.call('ACL', 'SETUSER', 'default', '+@all'))
  const first = uniqueStream('first')
  reader.add(first, '0-0')
  await untilBlocked(client)
  // That it is forbidden is learnt by the first that tries, which waits for the end of the read: 2 s.
  const second = uniqueStream('second')
  await addEntries(client, second)
  reader.add(second, '0-0')
  await eventually(() => heard(second).length === 1, 4_000)
  const times: number[] = []
  for (let round = 0; round < 5; round++) {
    const stream = uniqueStream(`q${round}`)
    await addEntries(client, stream)
    const addedAt = performance.now()
    reader.add(stream, '0-0')
    await eventually(() => heard(stream).length === 1)
    times.push(performance.now() - addedAt)
  }
  t.ok(times.sort((a, b) => a - b)[3]! < 1_000, `${times.map(Math.round)} ms`)
  t.equal(sent['unblockEvents'], 1, 'and it is not tried again and again')
  const [id] = await addEntries(client, first)
  await eventually(() => heard(first).at(-1) === id)
})

t.test('where no CLIENT command is allowed, streams are heard all the same', async (t) => {
  await client.call('ACL', 'SETUSER', 'default', '-client')
  t.teardown(() => client.call('ACL', 'SETUSER', 'default', '+@all'))
  const { reader, heard, sent } = await openReader(t, redis)
  const times: number[] = []
  for (let round = 0; round < 5; round++) {
    const stream = uniqueStream(`q${round}`)
    await addEntries(client, stream)
    const addedAt = performance.now()
    reader.add(stream, '0-0')
    await eventually(() => heard(stream).length === 1)
    times.push(performance.now() - addedAt)
    await eventually(() => reader.isLive(stream))
  }
  t.ok(times.sort((a, b) => a - b)[3]! < 1_000, `${times.map(Math.round)} ms`)
  t.equal(sent['unblockEvents'], undefined)
  t.equal(reader.stats().status, 'live')
})

t.test('a user who may not read streams is told as degraded, and heard once it may', async (t) => {
  const { reader, heard } = await openReader(t, redis)
  await client.call('ACL', 'SETUSER', 'default', '-xread')
  t.teardown(() => client.call('ACL', 'SETUSER', 'default', '+@all'))
  const stream = uniqueStream()
  const ids = await addEntries(client, stream, 3)
  reader.add(stream, '0-0')
  await eventually(() => reader.stats().status === 'degraded')
  t.match(reader.stats().reason, /NOPERM/)
  t.equal(reader.isLive(stream), false)
  // One try a second: what is refused is not asked for as fast as it can be.
  const tries = (await callsWithin(client, 2_500))['evalsha']
  t.ok(tries === undefined || tries <= 4, `${tries} tries in 2.5 s`)
  await client.call('ACL', 'SETUSER', 'default', '+@all')
  await eventually(() => reader.isLive(stream))
  t.same(heard(stream), ids)
  t.equal(reader.stats().reason, null)
})

t.test('close ends a read that waits at once, and nothing is delivered or asked after it', async (t) => {
  const { reader, heard } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  await untilBlocked(client)
  const began = performance.now()
  await reader.close()
  const elapsedMs = performance.now() - began
  t.ok(elapsedMs < 500, `${Math.round(elapsedMs)} ms`)
  const before = await readCalls(client)
  await addEntries(client, stream)
  reader.add(uniqueStream(), '0-0')
  await reader.close()
  t.same(await callsWithin(client, 300), {})
  t.equal(await readCalls(client), before)
  t.same(heard(stream), [])
})

t.test('close does not wait for a Redis that is frozen', async (t) => {
  const { reader } = await openReader(t, redis)
  reader.add(uniqueStream(), '0-0')
  await untilBlocked(client)
  const pid = Number(/process_id:(\d+)/.exec(await client.info('server'))?.[1])
  process.kill(pid, 'SIGSTOP')
  let elapsedMs: number
  try {
    const began = performance.now()
    await reader.close()
    elapsedMs = performance.now() - began
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  t.ok(elapsedMs < 1_500, `${Math.round(elapsedMs)} ms`)
})

t.test('a reader that is closed while its connection is away stays closed', async (t) => {
  const { reader, connections } = await openReader(t, redis)
  reader.add(uniqueStream(), '0-0')
  await untilBlocked(client)
  const lost = new Promise((resolve) => connections.events.client.once('close', resolve))
  await killEvents()
  await lost
  await reader.close()
  const before = await callsByCommand(client)
  await eventually(() => connections.events.ready)
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.equal((await callsByCommand(client))['xread'], before['xread'])
})
