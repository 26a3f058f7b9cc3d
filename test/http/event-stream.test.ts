/** Event streams of a bare app over real sockets, read byte by byte, with clients that read as slowly as a test needs. */
import type { ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { type Access, anonymous } from '../../src/auth/access.ts'
import { createClientSockets } from '../../src/http/clients/client-sockets.ts'
import { createSendBudget } from '../../src/http/clients/send-budget.ts'
import { createWaits, waitsPlugin } from '../../src/http/clients/waits.ts'
import { type EventStream, eventStreamPlugin } from '../../src/http/event-stream.ts'
import { createPacedTurns } from '../../src/paced-turns.ts'
import { eventually } from '../helpers/app.ts'

/** Longer than any test here takes. */
const HOUR_MS = 3_600_000
/** More than the socket buffers of both ends hold. */
const FLOOD_BYTES = 32 * 1_048_576
/** How long a client that does not read keeps its stream. */
const GRACE_MS = 1_000

const frameOf = (bytes: number) => `data: ${'x'.repeat(bytes)}\n\n`

/** The plugins that event streams need, with an authentication that lets everyone in. */
async function prepare(
  t: Test,
  app: FastifyInstance,
  options: { heartbeatMs: number; maxBufferedBytes: number },
) {
  app.decorateRequest('access', null as unknown as Access)
  app.addHook('onRequest', async (request) => {
    request.access = anonymous
  })
  const sockets = createClientSockets({ writeTimeoutMs: HOUR_MS })
  sockets.watch(app.server)
  const waits = createWaits({
    sockets,
    isInForce: () => true,
    maxPerConnection: 16,
    maxPerKey: 1_000,
    max: 1_000,
  })
  t.teardown(() => {
    sockets.close()
    waits.close()
  })
  await app.register(waitsPlugin, { waits })
  const turns = createPacedTurns()
  t.teardown(turns.close)
  const budget = createSendBudget(sockets, 4 * FLOOD_BYTES)
  await app.register(eventStreamPlugin, { ...options, sockets, budget, turns })
}

async function setUp(t: Test, { heartbeatMs = HOUR_MS, maxBufferedBytes = 65_536 } = {}) {
  const app = Fastify({ logger: false })
  await prepare(t, app, { heartbeatMs, maxBufferedBytes })
  const opened: { stream: EventStream; raw: ServerResponse }[] = []
  app.get('/events', (_, reply) => {
    opened.push({ stream: reply.openEventStream(reply.beginWait()), raw: reply.raw })
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const sockets: Socket[] = []
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    await app.close()
  })

  /** Opens a client, waits for its headers, and returns it with its stream on the server. */
  async function open() {
    const socket = connect(port, '127.0.0.1')
    sockets.push(socket)
    let text = ''
    let isClosed = false
    socket.setEncoding('latin1')
    socket.on('data', (chunk: string) => {
      text += chunk
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      isClosed = true
    })
    socket.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n')
    await eventually(() => text.includes('retry: '))
    return {
      socket,
      ...opened.at(-1)!,
      head: () => text.slice(0, text.indexOf('\r\n\r\n')).toLowerCase().split('\r\n'),
      body: () => decodeChunks(text.slice(text.indexOf('\r\n\r\n') + 4)),
      bytes: () => text.length,
      isClosed: () => isClosed,
      /** The response ended, instead of being cut off. */
      isComplete: () => text.endsWith('\r\n0\r\n\r\n'),
    }
  }
  return { app, open }
}

/** Decodes the chunked coding (RFC 9112 §7.1) of what has arrived so far. */
function decodeChunks(text: string): string {
  let body = ''
  for (let at = 0; ; ) {
    const end = text.indexOf('\r\n', at)
    const size = Number.parseInt(text.slice(at, end), 16)
    if (end < 0 || !(size > 0)) return body
    body += text.slice(end + 2, end + 2 + size)
    at = end + 2 + size + 2
  }
}

/** Sends all of it in one tick, so that it is buffered in the process first. */
function flood(stream: EventStream, bytes = FLOOD_BYTES): void {
  for (let sent = 0; sent < bytes && !stream.isClosed; sent += 65_536) stream.send(frameOf(65_536))
}

t.test('a stream starts with its type, caching and reconnection headers, and the retry time', async (t) => {
  const { open } = await setUp(t)
  const { head, body } = await open()
  const [status, ...headers] = head()
  t.equal(status, 'http/1.1 200 ok')
  for (const header of [
    'content-type: text/event-stream; charset=utf-8',
    'cache-control: no-store',
    'x-accel-buffering: no',
  ]) {
    t.ok(headers.includes(header), header)
  }
  t.ok(headers.some((header) => /^x-request-id: \S+$/.test(header)))
  t.equal(body(), 'retry: 2000\n\n')
})

t.test('each client receives its own frames, unchanged and in order', async (t) => {
  const { open } = await setUp(t)
  const a = await open()
  const b = await open()
  a.stream.send('data: a1\n\n')
  b.stream.send('data: b1\n\n')
  a.stream.send('data: a2\n\n')
  await eventually(() => a.body().includes('a2') && b.body().includes('b1'))
  t.equal(a.body(), 'retry: 2000\n\ndata: a1\n\ndata: a2\n\n')
  t.equal(b.body(), 'retry: 2000\n\ndata: b1\n\n')
})

t.test('an idle stream carries heartbeat comments', async (t) => {
  const { open } = await setUp(t, { heartbeatMs: 20 })
  const a = await open()
  const b = await open()
  await eventually(() => [a, b].every(({ body }) => body().split(':\n\n').length > 3))
  t.match(a.body(), /^retry: 2000\n\n(:\n\n)+$/)
  t.match(b.body(), /^retry: 2000\n\n(:\n\n)+$/)
})

t.test('an ended stream is complete, and sends nothing more', async (t) => {
  const { open } = await setUp(t, { heartbeatMs: 20 })
  const { stream, body, isClosed, isComplete } = await open()
  t.equal(stream.isClosed, false)
  stream.send('data: last\n\n')
  stream.end()
  t.equal(stream.isClosed, true)
  stream.send('data: too late\n\n')
  stream.end()
  await eventually(isComplete)
  const atEnd = body()
  t.ok(atEnd.endsWith('data: last\n\n'))
  // Several heartbeat intervals pass, as another stream shows.
  const other = await open()
  await eventually(() => other.body().split(':\n\n').length > 3)
  t.equal(body(), atEnd)
  t.equal(isClosed(), false, 'its connection stays open for reuse')
})

t.test('onClose reports once that the client has gone, and sending afterwards is harmless', async (t) => {
  const { open } = await setUp(t, { heartbeatMs: 20 })
  const { socket, stream } = await open()
  const other = await open()
  let closes = 0
  stream.onClose(() => closes++)
  t.equal(closes, 0)
  socket.destroy()
  await eventually(() => closes > 0)
  t.equal(stream.isClosed, true)
  stream.send('data: too late\n\n')
  await stream.drained()
  stream.end()
  other.stream.send('data: still here\n\n')
  await eventually(() => other.body().includes('still here') && other.body().endsWith(':\n\n'))
  t.equal(closes, 1)
  let late = 0
  stream.onClose(() => late++)
  t.equal(late, 1, 'a late listener is called immediately')
})

t.test('onClose reports once that the service has ended the stream', async (t) => {
  const { open } = await setUp(t)
  const { stream } = await open()
  let closes = 0
  stream.onClose(() => closes++)
  stream.end()
  await eventually(() => closes > 0)
  stream.end()
  let late = 0
  stream.onClose(() => late++)
  t.same([closes, late], [1, 1])
})

t.test('a stream that opens after its client has gone is closed immediately', async (t) => {
  const app = Fastify({ logger: false })
  await prepare(t, app, { heartbeatMs: 20, maxBufferedBytes: 65_536 })
  let stream: EventStream | undefined
  let arrived = false
  app.get('/events', (request, reply) => {
    arrived = true
    request.raw.socket.once('close', () =>
      setImmediate(() => (stream = reply.openEventStream(reply.beginWait()))),
    )
    reply.hijack()
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const socket = connect((app.server.address() as { port: number }).port, '127.0.0.1')
  socket.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n')
  await eventually(() => arrived)
  socket.destroy()
  await eventually(() => stream !== undefined)
  t.equal(stream!.isClosed, true)
  let closes = 0
  stream!.onClose(() => closes++)
  t.equal(closes, 1)
  stream!.send('data: too late\n\n')
  await stream!.drained()
})

t.test('drained() resolves once the client has read what was sent', async (t) => {
  const { open } = await setUp(t, { maxBufferedBytes: 2 * FLOOD_BYTES })
  const { socket, stream, bytes } = await open()
  await stream.drained()
  socket.pause()
  flood(stream)
  let drained = false
  const draining = stream.drained().then(() => {
    drained = true
  })
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.equal(drained, false, 'the client does not read')
  socket.resume()
  await draining
  await eventually(() => bytes() >= FLOOD_BYTES, 30_000)
  t.equal(stream.isClosed, false)
})

t.test('drained() resolves when the client disconnects', async (t) => {
  const { open } = await setUp(t, { maxBufferedBytes: 2 * FLOOD_BYTES })
  const { socket, stream } = await open()
  socket.pause()
  flood(stream)
  const draining = Promise.all([stream.drained(), stream.drained()])
  socket.destroy()
  await draining
  t.equal(stream.isClosed, true)
})

t.test('a client that does not read is disconnected, and the others are not', async (t) => {
  const { open } = await setUp(t, { maxBufferedBytes: FLOOD_BYTES / 8 })
  const slow = await open()
  const other = await open()
  slow.socket.pause()
  let closes = 0
  slow.stream.onClose(() => closes++)
  const floodedAt = performance.now()
  flood(slow.stream)
  t.equal(slow.stream.isClosed, false, 'not before the grace period')
  await eventually(() => closes > 0)
  const elapsedMs = performance.now() - floodedAt
  t.ok(elapsedMs >= GRACE_MS - 5, `${elapsedMs} ms`)
  t.equal(slow.stream.isClosed, true)
  other.stream.send('data: still here\n\n')
  await eventually(() => other.body().includes('still here'))
  t.equal(other.stream.isClosed, false)
})

t.test('a client that reads a burst above the cap keeps its stream', async (t) => {
  const { open } = await setUp(t, { maxBufferedBytes: 65_536 })
  const { stream, raw, body, bytes } = await open()
  flood(stream, 8 * 65_536)
  t.ok(raw.writableLength > 65_536, `${raw.writableLength} bytes are buffered`)
  await eventually(() => bytes() >= 8 * 65_536)
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS + 200))
  stream.send('data: still here\n\n')
  await eventually(() => body().endsWith('data: still here\n\n'))
  t.equal(stream.isClosed, false)
})

t.test('shutdown ends every stream, complete and with everything that was sent', async (t) => {
  const { app, open } = await setUp(t)
  const clients = [await open(), await open(), await open()]
  const closes = [0, 0, 0]
  for (const [i, { stream }] of clients.entries()) stream.onClose(() => closes[i]!++)
  for (const { stream } of clients) stream.send('data: last\n\n')
  await app.close()
  await eventually(() => clients.every(({ isClosed }) => isClosed()))
  for (const { body, isComplete } of clients) {
    t.equal(body(), 'retry: 2000\n\ndata: last\n\n')
    t.ok(isComplete())
  }
  t.same(closes, [1, 1, 1])
  clients[0]!.stream.send('data: too late\n\n')
  t.equal(clients[0]!.stream.isClosed, true)
})
