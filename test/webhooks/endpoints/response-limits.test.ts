/** Endpoints that never stop sending: each is cut off after few bytes, and holds neither the event loop nor other endpoints. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import t, { type Test } from 'tap'
import { createAddressGuard } from '../../../src/webhooks/endpoints/address-guard.ts'
import { createWebhookClient } from '../../../src/webhooks/endpoints/webhook-client.ts'
import { startReceiver } from '../endpoint.ts'

const MAX_RESPONSE_BYTES = 100_000
const OK = 'HTTP/1.1 200 OK\r\n'
const CHUNKED = `${OK}transfer-encoding: chunked\r\n\r\n`

function startClient(t: Test) {
  const guard = createAddressGuard({
    allowCidrs: ['127.0.0.0/8'],
    lookup: (_name, _options, callback) => callback(new Error('no name is looked up'), ''),
  })
  const client = createWebhookClient({ guard, maxResponseBytes: MAX_RESPONSE_BYTES })
  t.teardown(() => client.close())
  return (url: string) => client.send({ url, headers: {}, body: '{}', timeoutMs: 10_000 })
}

/** Sends `head`, then `endless` over and over for as long as the client reads. */
async function startEndless(t: Test, head: string, endless: string) {
  const piece = endless.repeat(Math.ceil(10_000 / endless.length))
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.write(head)
      const writeMore = () => {
        while (!socket.destroyed && socket.write(piece)) {}
      }
      socket.on('drain', writeMore)
      writeMore()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  return {
    url,
    allClosed: () => Promise.all(sockets.map((socket) => socket.closed || once(socket, 'close'))),
  }
}

const EXCESS = 'the response has too many bytes outside its body'
const OVERFLOW = 'the response headers are too large'
const endless: Record<string, [head: string, endless: string, reason: string]> = {
  'informational responses': [
    '',
    'HTTP/1.1 103 Early Hints\r\n\r\n',
    'the endpoint sends too many informational responses',
  ],
  'informational responses with headers': [
    '',
    `HTTP/1.1 103 Early Hints\r\nlink: ${'x'.repeat(15_000)}\r\n\r\n`,
    EXCESS,
  ],
  'a reason phrase': ['HTTP/1.1 200 ', 'x', EXCESS],
  'a header': [`${OK}x-long: `, 'x', OVERFLOW],
  headers: [OK, 'x-more: y\r\n', OVERFLOW],
  'a chunk extension': [`${CHUNKED}5;`, 'x', EXCESS],
  'chunk extensions': [CHUNKED, `1;${'x'.repeat(200)}\r\na\r\n`, EXCESS],
  trailers: [`${CHUNKED}0\r\n`, 'x-more: y\r\n', OVERFLOW],
  'a trailer': [`${CHUNKED}0\r\nx-long: `, 'x', OVERFLOW],
}

for (const [what, [head, piece, reason]] of Object.entries(endless)) {
  t.test(`an endpoint that sends ${what} without end is a named failure, and is disconnected`, async (t) => {
    const hostile = await startEndless(t, head, piece)
    const receiver = await startReceiver(t)
    const send = startClient(t)
    const delay = monitorEventLoopDelay({ resolution: 10 })
    delay.enable()
    const others = Array.from({ length: 10 }, () => send(receiver.url))
    const result = await send(hostile.url)
    for (const other of await Promise.all(others)) t.equal(other.status, 200)
    await hostile.allClosed()
    delay.disable()
    t.match(result, { status: undefined, reason, isUnsent: false })
    t.ok(result.ms < 3_000, `${result.ms} ms`)
    // Loose: the server of this test shares the event loop, and other tests the CPU.
    t.ok(delay.max / 1e6 < 2_000, `the event loop was held for ${delay.max / 1e6} ms`)
  })
}

t.test('what endpoints send within the limits is accepted', async (t) => {
  const send = startClient(t)
  const replies: [string, string][] = [
    [`${'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(10)}${OK}content-length: 2\r\n\r\n{}`, '{}'],
    [`${OK}x: ${'x'.repeat(15_000)}\r\ncontent-length: 2\r\n\r\n{}`, '{}'],
    [`${CHUNKED}${'1\r\nx\r\n'.repeat(MAX_RESPONSE_BYTES)}0\r\n\r\n`, 'x'.repeat(MAX_RESPONSE_BYTES)],
    [`${CHUNKED}2;name=value\r\n{}\r\n0\r\nx-trailer: ${'x'.repeat(10_000)}\r\n\r\n`, '{}'],
    [
      `${OK}content-length: ${MAX_RESPONSE_BYTES}\r\n\r\n${'x'.repeat(MAX_RESPONSE_BYTES)}`,
      'x'.repeat(MAX_RESPONSE_BYTES),
    ],
  ]
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (request) => {
      const [, index] = /^POST \/(\d)/.exec(request.toString('latin1')) ?? []
      if (index !== undefined) socket.write(replies[Number(index)]![0])
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  // Twice over one connection: the bytes of an earlier response do not count.
  for (let round = 0; round < 2; round++) {
    for (const [index, [, body]] of replies.entries())
      t.match(
        await send(`http://127.0.0.1:${port}/${index}`),
        { status: 200, body: Buffer.from(body) },
        `reply ${index}`,
      )
  }
})
