/**
 * Deliveries over real sockets to well-behaved and hostile endpoints (fault H1: responses that never end). The deadline
 * covers the whole exchange, the response size is bounded, nothing is sent twice, and aborted requests leave no socket.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import {
  type AddressInfo,
  createServer as createTcpServer,
  type LookupFunction,
  type Server,
  type Socket,
} from 'node:net'
import { text } from 'node:stream/consumers'
import { setImmediate, setTimeout as wait } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { createAddressGuard } from '../../../src/webhooks/endpoints/address-guard.ts'
import { createWebhookClient, type DeliveryRequest } from '../../../src/webhooks/endpoints/webhook-client.ts'
import { createAuthority } from '../../helpers/tls-redis.ts'

const MAX_RESPONSE_BYTES = 1_000

const toLoopback: LookupFunction = (_name, _options, callback) =>
  callback(null, [{ address: '127.0.0.1', family: 4 }])

function startClient(t: Test, lookup = toLoopback) {
  const guard = createAddressGuard({ allowCidrs: ['127.0.0.1/32'], lookup })
  const client = createWebhookClient({ guard, maxResponseBytes: MAX_RESPONSE_BYTES })
  t.teardown(() => client.close())
  const send = (url: string, delivery: Partial<DeliveryRequest> = {}) =>
    client.send({ url, headers: {}, body: '{}', timeoutMs: 5_000, ...delivery })
  return { send, close: client.close }
}

/** The server's address, its sockets so far, and a way to wait until all of them are closed. */
async function listen(t: Test, server: Server, scheme = 'http') {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return {
    port,
    url: `${scheme}://127.0.0.1:${port}/hook`,
    sockets,
    async allClosed() {
      const open = [...sockets].filter(({ closed }) => !closed)
      await Promise.all(open.map((socket) => new Promise((resolve) => socket.once('close', resolve))))
    },
  }
}

const startEndpoint = (t: Test, listener: RequestListener) => listen(t, createServer(listener))

/** A raw TCP endpoint: `respond` is called with each socket when the first bytes of a request arrive. */
function startRawEndpoint(t: Test, respond: (socket: Socket) => void) {
  return listen(
    t,
    createTcpServer((socket) => socket.once('data', () => respond(socket))),
  )
}

function dribble(socket: Socket, head: string) {
  socket.write(head)
  const timer = setInterval(() => socket.write('x'), 20)
  socket.on('close', () => clearInterval(timer))
}

const HEAD = 'HTTP/1.1 200 OK\r\n'

t.test('the request is sent byte for byte as given, without asking for compression', async (t) => {
  let seen: Pick<IncomingMessage, 'method' | 'url' | 'headers'> | undefined
  let body: string | undefined
  const { port } = await startEndpoint(t, async (request, response) => {
    seen = request
    body = await text(request)
    response.writeHead(200, { 'content-type': 'application/json', 'retry-after': '7' }).end('{"ok":"✓"}')
  })
  const { send } = startClient(t)
  const sent = '{"name":"Zoë ✓ 𝄞"}'
  const headers = { 'content-type': 'application/json', 'webhook-id': 'emails:1' }
  const result = await send(`http://endpoint.test:${port}/hook/%2F?a=b&c`, { headers, body: sent })
  t.match(result, {
    status: 200,
    retryAfter: '7',
    contentType: 'application/json',
    body: Buffer.from('{"ok":"✓"}'),
    isCut: false,
  })
  t.ok(Number.isInteger(result.ms))
  t.match(seen, {
    method: 'POST',
    url: '/hook/%2F?a=b&c',
    headers: { host: `endpoint.test:${port}`, ...headers },
  })
  t.equal(seen?.headers['content-length'], `${Buffer.byteLength(sent)}`)
  t.equal(seen?.headers['accept-encoding'], undefined)
  t.equal(body, sent)
})

t.test('an endpoint that never finishes is cut off at the deadline, and its socket is closed', async (t) => {
  const behaviours: Record<string, (socket: Socket) => void> = {
    'sends nothing': () => {},
    'dribbles its headers': (socket) => dribble(socket, `${HEAD}x-slow: `),
    'dribbles a body of known length': (socket) => dribble(socket, `${HEAD}content-length: 900\r\n\r\n`),
    'dribbles a body until it closes': (socket) => dribble(socket, `${HEAD}\r\n`),
    'dribbles chunks': (socket) => {
      socket.write(`${HEAD}transfer-encoding: chunked\r\n\r\n`)
      const timer = setInterval(() => socket.write('1\r\nx\r\n'), 20)
      socket.on('close', () => clearInterval(timer))
    },
    'dribbles informational responses': (socket) => {
      const timer = setInterval(() => socket.write('HTTP/1.1 103 Early Hints\r\n\r\n'), 60)
      socket.on('close', () => clearInterval(timer))
    },
  }
  const { send } = startClient(t)
  await Promise.all(
    Object.entries(behaviours).map(async ([behaviour, respond]) => {
      const endpoint = await startRawEndpoint(t, respond)
      const result = await send(endpoint.url, { timeoutMs: 300 })
      t.match(result, { status: undefined, reason: 'no response within 300 ms' }, behaviour)
      t.ok(result.ms >= 299 && result.ms < 1_300, `${behaviour}: ended after ${result.ms} ms`)
      await endpoint.allClosed()
    }),
  )
})

t.test('endpoints that never finish do not slow down deliveries to others', async (t) => {
  const slow = await startRawEndpoint(t, (socket) => dribble(socket, `${HEAD}content-length: 900\r\n\r\n`))
  const fast = await startEndpoint(t, (_request, response) => response.end('{}'))
  const { send } = startClient(t)
  const stuck = Array.from({ length: 30 }, () => send(slow.url, { timeoutMs: 1_000 }))
  const results = []
  for (let round = 0; round < 10; round++) {
    results.push(...(await Promise.all(Array.from({ length: 10 }, () => send(fast.url)))))
  }
  t.ok(results.every(({ status }) => status === 200))
  t.ok(Math.max(...results.map(({ ms }) => ms)) < 900, 'no delivery waited for a slot')
  for (const { status, ms } of await Promise.all(stuck)) t.ok(status === undefined && ms < 2_000, `${ms} ms`)
  await slow.allClosed()
  t.equal(slow.sockets.size, 30, 'no connection was opened to replace them')
})

t.test('a slow name lookup counts towards the deadline, and nothing is sent after it', async (t) => {
  const { port, sockets } = await startEndpoint(t, (_request, response) => response.end())
  const late: (() => void)[] = []
  const { send } = startClient(t, (name, options, callback) => {
    late.push(() => toLoopback(name, options, callback))
  })
  const result = await send(`http://slow.test:${port}/`, { timeoutMs: 200 })
  t.match(result, { reason: 'The name slow.test was not resolved in time.', isUnsent: true })
  t.ok(result.ms < 1_200)
  for (const resolve of late) resolve()
  t.equal(late.length, 1)
  await wait(50)
  t.equal(sockets.size, 0, 'no connection was opened')
})

t.test('a TLS handshake that never ends counts towards the deadline', async (t) => {
  const { port, sockets, allClosed } = await startRawEndpoint(t, () => {})
  const { send } = startClient(t)
  const result = await send(`https://127.0.0.1:${port}/`, { timeoutMs: 200 })
  t.match(result, { status: undefined, reason: 'no response within 200 ms' })
  await allClosed()
  t.equal(sockets.size, 1)
})

t.test('a response of the maximum size is read; a larger one is cut and its socket closed', async (t) => {
  const { send } = startClient(t)
  const whole = await startEndpoint(t, (_request, response) => response.end('x'.repeat(MAX_RESPONSE_BYTES)))
  t.match(await send(whole.url), { status: 200, body: Buffer.alloc(MAX_RESPONSE_BYTES, 'x'), isCut: false })
  t.equal([...whole.sockets].filter(({ closed }) => closed).length, 0)

  const over = await startEndpoint(t, (_request, response) => {
    response.writeHead(422).end('x'.repeat(MAX_RESPONSE_BYTES + 1))
  })
  t.match(await send(over.url), { status: 422, body: undefined, isCut: true })

  let written = 0
  const endless = await startRawEndpoint(t, (socket) => {
    socket.write(`${HEAD}\r\n`)
    const writeMore = () => {
      while (!socket.destroyed && socket.write('x'.repeat(10_000))) written += 10_000
    }
    socket.on('drain', writeMore)
    writeMore()
  })
  t.match(await send(endless.url), { status: 200, body: undefined, isCut: true })
  await endless.allClosed()
  t.ok(written < 50_000_000, `${written} bytes were written`)
})

t.test('a body that is not UTF-8 is dropped, and nothing is decompressed', async (t) => {
  const { send } = startClient(t)
  const latin = await startEndpoint(t, (_request, response) => response.end(Buffer.from('Zoë', 'latin1')))
  t.match(await send(latin.url), { status: 200, body: undefined, isCut: false })
  const bomb = gzipSync('x'.repeat(100_000))
  t.ok(bomb.length < MAX_RESPONSE_BYTES)
  const packed = await startEndpoint(t, (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb)
  })
  t.match(await send(packed.url), { status: 200, body: undefined, isCut: false })
})

t.test('connections are reused', async (t) => {
  const endpoint = await startEndpoint(t, (_request, response) => response.end('{}'))
  const { send } = startClient(t)
  for (let round = 0; round < 10; round++) {
    t.match(await send(endpoint.url), { status: 200 })
    await setImmediate()
  }
  t.equal(endpoint.sockets.size, 1)
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 8 }, () => send(endpoint.url)))
    await setImmediate()
  }
  t.equal(endpoint.sockets.size, 8, 'one connection for each concurrent delivery')
})

t.test('a redirect is returned, not followed', async (t) => {
  let requests = 0
  const { url } = await startEndpoint(t, (_request, response) => {
    requests++
    response.writeHead(307, { location: '/elsewhere' }).end()
  })
  const { send } = startClient(t)
  t.match(await send(url), { status: 307 })
  t.equal(requests, 1)
})

t.test('a broken connection is reported, and nothing is sent twice', async (t) => {
  let requests = 0
  const { send } = startClient(t)
  const closing = { status: undefined, reason: 'the connection was closed before the response was complete' }
  const cases: Record<string, (socket: Socket) => void> = {
    'before the response': (socket) => socket.end(),
    'by a reset': (socket) => socket.resetAndDestroy(),
    'within the headers': (socket) => socket.end(`${HEAD}x-`),
    'within the body': (socket) => socket.end(`${HEAD}content-length: 100\r\n\r\nxxx`),
    'within the chunks': (socket) => socket.end(`${HEAD}transfer-encoding: chunked\r\n\r\n5\r\nxx`),
  }
  for (const [when, respond] of Object.entries(cases)) {
    requests = 0
    const { url } = await startRawEndpoint(t, (socket) => {
      requests++
      respond(socket)
    })
    t.match(await send(url), closing, when)
    t.equal(requests, 1, when)
  }
})

t.test(
  'a kept-alive connection that the endpoint closes on the next request is reported, not retried',
  async (t) => {
    let requests = 0
    const { url } = await startEndpoint(t, (request, response) => {
      requests++
      if (requests === 1) response.end()
      else request.socket.destroy()
    })
    const { send } = startClient(t)
    t.match(await send(url), { status: 200 })
    await setImmediate()
    t.match(await send(url), { status: undefined, reason: /^the connection was closed/ })
    t.equal(requests, 2)
  },
)

t.test('the reason for a missing response is short and specific', async (t) => {
  const { send } = startClient(t, (name, options, callback) => {
    if (name === 'endpoint.test') return toLoopback(name, options, callback)
    if (name === 'inside.test') return callback(null, [{ address: '10.0.0.1', family: 4 }])
    callback(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), '')
  })
  const gone = createTcpServer().listen(0, '127.0.0.1')
  await once(gone, 'listening')
  const { port } = gone.address() as AddressInfo
  gone.close()
  await once(gone, 'close')
  const nonsense = await startRawEndpoint(t, (socket) => socket.end('220 mail.test ESMTP\r\n'))
  const flood = await startRawEndpoint(t, (socket) => socket.end(`${HEAD}x: ${'x'.repeat(100_000)}\r\n\r\n`))
  const reasons: Record<string, string | RegExp> = {
    [`http://127.0.0.1:${port}/`]: 'connection refused',
    [`http://endpoint.test:${port}/`]: 'connection refused',
    'http://missing.test/': 'The name missing.test has no address that webhooks may be sent to.',
    'http://inside.test/': 'The name inside.test has no address that webhooks may be sent to.',
    'http://10.0.0.1/': 'The address 10.0.0.1 is not allowed.',
    'ftp://endpoint.test/': 'The URL must start with https:// or http://.',
    [nonsense.url]: 'the response is not valid HTTP',
    [flood.url]: 'the response headers are too large',
  }
  for (const [url, reason] of Object.entries(reasons)) {
    const result = await send(url)
    t.match(result, { status: undefined, reason }, url)
    t.ok(Number.isInteger(result.ms))
  }
})

t.test('the reason for an invalid header does not quote it', async (t) => {
  const { url } = await startEndpoint(t, (_request, response) => response.end())
  const { send } = startClient(t)
  for (const headers of [
    { 'x-token': 'hunter2\r\nx: y' },
    { 'hunter2\n': 'a' },
    { 'transfer-encoding': 'hunter2' },
    { expect: '100-continue', 'x-token': 'hunter2' },
  ]) {
    const result = await send(url, { headers })
    t.match(result, { status: undefined, reason: 'the URL or a header cannot be sent over HTTP' })
  }
})

t.test('an untrusted certificate is refused; the server name is sent for a trusted one', async (t) => {
  const authority = await createAuthority()
  const names: unknown[] = []
  const server = createTlsServer(await authority.issue('endpoint.test'), (request, response) => {
    names.push((request.socket as Socket & { servername?: string }).servername)
    response.end('{}')
  })
  const { port, sockets } = await listen(t, server, 'https')
  const { send } = startClient(t)
  t.match(await send(`https://endpoint.test:${port}/`), {
    status: undefined,
    reason: /^TLS failed \((UNABLE_TO_|SELF_SIGNED_)/,
  })
  t.same(names, [])
  const { port: plain } = await startEndpoint(t, (_request, response) => response.end())
  t.match(await send(`https://endpoint.test:${plain}/`), { status: undefined, reason: /^TLS failed \(/ })

  // The only way to make a running Node.js process trust the test's certificate authority.
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
  t.teardown(() => delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'])
  const before = sockets.size
  for (let round = 0; round < 3; round++) {
    t.match(await send(`https://endpoint.test:${port}/`), { status: 200, body: Buffer.from('{}') })
    await setImmediate()
  }
  t.same(names, ['endpoint.test', 'endpoint.test', 'endpoint.test'])
  t.equal(sockets.size - before, 1)
})

t.test('close ends deliveries in flight and every connection', async (t) => {
  let arrived = () => {}
  const waiting = new Promise<void>((resolve) => {
    arrived = resolve
  })
  const { url, allClosed } = await startEndpoint(t, (request, response) => {
    if (request.url === '/hook') response.end()
    else arrived()
  })
  const { send, close } = startClient(t)
  await send(url)
  const slow = send(`${url}/slow`)
  const silent = await startRawEndpoint(t, () => {})
  const stuck = send(silent.url, { timeoutMs: 10_000 })
  await waiting
  const closed = close()
  t.equal(close(), closed, 'closing twice returns the same promise')
  for (const result of [send(url), slow, stuck]) {
    t.match(await result, { status: undefined, reason: 'the service is stopping' })
  }
  await closed
  await Promise.all([allClosed(), silent.allClosed()])
})
