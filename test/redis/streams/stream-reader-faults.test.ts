/** The stream reader when its connection breaks, freezes, is refused or closes. Every fault is real. */
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

// Serial, because a fault of the server affects every test.
const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

const killEvents = async () => client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))

t.test('a killed connection loses no entry and repeats none', async (t) => {
  const { reader, connections, delivered, gaps, reconnects, sent } = await openReader(t, redis)
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
    await eventually(
      () => delivered(busy).length >= ids.length && reader.isLive(busy) && reader.isLive(silent),
    )
  }
  ids.push(...(await addEntries(client, busy)))
  await eventually(() => delivered(busy).at(-1) === ids.at(-1))
  t.same(delivered(busy), ids)
  const degraded = ['degraded', 'The events connection is lost', false, false]
  t.same(seen, [degraded, degraded, degraded])
  t.match(reader.stats(), { status: 'live', reason: null, gaps: 0 })
  t.equal(reconnects(), 3, 'each reconnect is reported once')
  t.equal(sent['clientId'], 4)
  t.same(gaps, [])
})

t.test('a stream that is added while the connection is down is delivered after the reconnect', async (t) => {
  const { reader, connections, delivered } = await openReader(t, redis)
  const [first, second] = [uniqueStream('first'), uniqueStream('second')]
  reader.add(first, '0-0')
  await untilBlocked(client)
  const ids = await addEntries(client, second, 2)
  let liveWhileDown: boolean | undefined
  connections.events.client.once('close', () => {
    reader.add(second, '0-0')
    liveWhileDown = reader.isLive(second)
  })
  await killEvents()
  await eventually(() => delivered(second).length >= 2)
  t.equal(liveWhileDown, false)
  t.same(delivered(second), ids)
  t.ok(reader.isLive(second))
})

t.test('a frozen Redis is detected within 4 s, and delivery resumes without loss', async (t) => {
  const { reader, delivered, gaps, reconnects } = await openReader(t, redis)
  const stream = uniqueStream()
  reader.add(stream, '0-0')
  const before = await addEntries(client, stream, 3)
  await eventually(() => delivered(stream).length === 3)
  await untilBlocked(client)
  const pid = Number(/process_id:(\d+)/.exec(await client.info('server'))?.[1])
  process.kill(pid, 'SIGSTOP')
  let meanwhile: Promise<string[]>
  let noticedMs: number
  try {
    const frozenAt = performance.now()
    // The commands wait in the server's socket.
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
  // A read may block for 2 s; its reply is overdue 1 s later.
  t.ok(noticedMs < 4_000, `${Math.round(noticedMs)} ms`)
  const ids = [...before, ...(await meanwhile)]
  await eventually(() => reader.isLive(stream) && delivered(stream).length >= ids.length)
  ids.push(...(await addEntries(client, stream)))
  await eventually(() => delivered(stream).at(-1) === ids.at(-1))
  t.same(delivered(stream), ids)
  t.equal(reconnects(), 1)
  t.same(gaps, [])
})

t.test('where CLIENT UNBLOCK is forbidden, new streams are still delivered within a second', async (t) => {
  const { reader, delivered, sent } = await openReader(t, redis)
  await client.call('ACL', 'SETUSER', 'default', '-client|unblock')
  t.teardown(() => client.call('ACL', 'SETUSER', 'default', '+@all'))
  const first = uniqueStream('first')
  reader.add(first, '0-0')
  await untilBlocked(client)
  // The first attempt finds out that it is forbidden, and its stream waits for the read to end: 2 s.
  const second = uniqueStream('second')
  await addEntries(client, second)
  reader.add(second, '0-0')
  await eventually(() => delivered(second).length === 1, 4_000)
  const times: number[] = []
  for (let round = 0; round < 5; round++) {
    const stream = uniqueStream(`q${round}`)
    await addEntries(client, stream)
    const addedAt = performance.now()
    reader.add(stream, '0-0')
    await eventually(() => delivered(stream).length === 1)
    times.push(performance.now() - addedAt)
  }
  t.ok(times.sort((a, b) => a - b)[3]! < 1_000, `${times.map(Math.round)} ms`)
  t.equal(sent['unblockEvents'], 1, 'it is tried only once')
  const [id] = await addEntries(client, first)
  await eventually(() => delivered(first).at(-1) === id)
})

t.test('where no CLIENT command is allowed, streams are still delivered', async (t) => {
  await client.call('ACL', 'SETUSER', 'default', '-client')
  t.teardown(() => client.call('ACL', 'SETUSER', 'default', '+@all'))
  const { reader, delivered, sent } = await openReader(t, redis)
  const times: number[] = []
  for (let round = 0; round < 5; round++) {
    const stream = uniqueStream(`q${round}`)
    await addEntries(client, stream)
    const addedAt = performance.now()
    reader.add(stream, '0-0')
    await eventually(() => delivered(stream).length === 1)
    times.push(performance.now() - addedAt)
    await eventually(() => reader.isLive(stream))
  }
  t.ok(times.sort((a, b) => a - b)[3]! < 1_000, `${times.map(Math.round)} ms`)
  t.equal(sent['unblockEvents'], undefined)
  t.equal(reader.stats().status, 'live')
})

t.test(
  'without permission to read streams the reader is degraded, and it recovers once it has it',
  async (t) => {
    const { reader, delivered } = await openReader(t, redis)
    await client.call('ACL', 'SETUSER', 'default', '-xread')
    t.teardown(() => client.call('ACL', 'SETUSER', 'default', '+@all'))
    const stream = uniqueStream()
    const ids = await addEntries(client, stream, 3)
    reader.add(stream, '0-0')
    await eventually(() => reader.stats().status === 'degraded')
    t.match(reader.stats().reason, /NOPERM/)
    t.equal(reader.isLive(stream), false)
    // One attempt per second.
    const tries = (await callsWithin(client, 2_500))['evalsha']
    t.ok(tries === undefined || tries <= 4, `${tries} attempts in 2.5 s`)
    await client.call('ACL', 'SETUSER', 'default', '+@all')
    await eventually(() => reader.isLive(stream))
    t.same(delivered(stream), ids)
    t.equal(reader.stats().reason, null)
  },
)

t.test(
  'close ends a blocking read at once; afterwards nothing is delivered and no command is sent',
  async (t) => {
    const { reader, delivered } = await openReader(t, redis)
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
    t.same(delivered(stream), [])
  },
)

t.test('close does not wait for a frozen Redis', async (t) => {
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

t.test('a reader that is closed while its connection is down stays closed', async (t) => {
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
