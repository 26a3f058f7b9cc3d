/**
 * One POST, over real sockets, to receivers of every sort (fault H1: those that never come to an end): the deadline covers
 * all of it, the size is bounded, nothing is sent twice, and the sockets of what was given up are gone.
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
import { createAddressGuard } from '../../../src/webhooks/delivery/address-guard.ts'
import { createWebhookClient, type DeliveryRequest } from '../../../src/webhooks/delivery/webhook-client.ts'
import { createAuthority } from '../../helpers/tls-redis.ts'

const MAX_RESPONSE_BYTES = 1_000

const toLoopback: LookupFunction = (_name, _options, callback) =>
  callback(null, [{ address: '127.0.0.1', family: 4 }])

function startSender(t: Test, lookup = toLoopback) {
  const guard = createAddressGuard(['127.0.0.1/32'], lookup)
  const sender = createWebhookClient({ guard, maxResponseBytes: MAX_RESPONSE_BYTES })
  t.teardown(() => sender.close())
  const send = (url: string, delivery: Partial<DeliveryRequest> = {}) =>
    sender.send({ url, headers: {}, body: '{}', timeoutMs: 5_000, ...delivery })
  return { send, close: sender.close }
}

/** Its address, its sockets so far, and a promise that the newest of them is closed. */
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

const startReceiver = (t: Test, answer: RequestListener) => listen(t, createServer(answer))

/** Speaks TCP by hand: `talk` is called with each socket when the first bytes of a request have come. */
function startTalker(t: Test, talk: (socket: Socket) => void) {
  return listen(
    t,
    createTcpServer((socket) => socket.once('data', () => talk(socket))),
  )
}

function dribble(socket: Socket, head: string) {
  socket.write(head)
  const timer = setInterval(() => socket.write('x'), 20)
  socket.on('close', () => clearInterval(timer))
}

const HEAD = 'HTTP/1.1 200 OK\r\n'

t.test('the request is what was given, byte for byte, and asks for no compression', async (t) => {
  let seen: Pick<IncomingMessage, 'method' | 'url' | 'headers'> | undefined
  let body: string | undefined
  const { port } = await startReceiver(t, async (request, response) => {
    seen = request
    body = await text(request)
    response.writeHead(200, { 'content-type': 'application/json', 'retry-after': '7' }).end('{"ok":"✓"}')
  })
  const { send } = startSender(t)
  const sent = '{"name":"Zoë ✓ 𝄞"}'
  const headers = { 'content-type': 'application/json', 'webhook-id': 'emails:1' }
  const answer = await send(`http://receiver.test:${port}/hook/%2F?a=b&c`, { headers, body: sent })
  t.match(answer, {
    status: 200,
    retryAfter: '7',
    contentType: 'application/json',
    body: '{"ok":"✓"}',
    isCut: false,
  })
  t.ok(Number.isInteger(answer.ms))
  t.match(seen, {
    method: 'POST',
    url: '/hook/%2F?a=b&c',
    headers: { host: `receiver.test:${port}`, ...headers },
  })
  t.equal(seen?.headers['content-length'], `${Buffer.byteLength(sent)}`)
  t.equal(seen?.headers['accept-encoding'], undefined)
  t.equal(body, sent)
})

t.test('a receiver that comes to no end ends at the deadline, its socket with it', async (t) => {
  const ways: Record<string, (socket: Socket) => void> = {
    'says nothing': () => {},
    'dribbles its headers': (socket) => dribble(socket, `${HEAD}x-slow: `),
    'dribbles a body of known length': (socket) => dribble(socket, `${HEAD}content-length: 900\r\n\r\n`),
    'dribbles a body until it closes': (socket) => dribble(socket, `${HEAD}\r\n`),
    'dribbles chunks': (socket) => {
      socket.write(`${HEAD}transfer-encoding: chunked\r\n\r\n`)
      const timer = setInterval(() => socket.write('1\r\nx\r\n'), 20)
      socket.on('close', () => clearInterval(timer))
    },
    'says again and again that it goes on': (socket) => {
      const timer = setInterval(() => socket.write('HTTP/1.1 103 Early Hints\r\n\r\n'), 20)
      socket.on('close', () => clearInterval(timer))
    },
  }
  const { send } = startSender(t)
  await Promise.all(
    Object.entries(ways).map(async ([way, talk]) => {
      const receiver = await startTalker(t, talk)
      const answer = await send(receiver.url, { timeoutMs: 300 })
      t.match(answer, { status: undefined, reason: 'no answer in 300 ms' }, way)
      t.ok(answer.ms >= 299 && answer.ms < 1_300, `${way}: ended after ${answer.ms} ms`)
      await receiver.allClosed()
    }),
  )
})

t.test('others are unhurt by receivers that come to no end', async (t) => {
  const slow = await startTalker(t, (socket) => dribble(socket, `${HEAD}content-length: 900\r\n\r\n`))
  const fast = await startReceiver(t, (_request, response) => response.end('{}'))
  const { send } = startSender(t)
  const stuck = Array.from({ length: 30 }, () => send(slow.url, { timeoutMs: 1_000 }))
  const answers = []
  for (let round = 0; round < 10; round++) {
    answers.push(...(await Promise.all(Array.from({ length: 10 }, () => send(fast.url)))))
  }
  t.ok(answers.every(({ status }) => status === 200))
  t.ok(Math.max(...answers.map(({ ms }) => ms)) < 900, 'none waited for a place')
  for (const { status, ms } of await Promise.all(stuck)) t.ok(status === undefined && ms < 2_000, `${ms} ms`)
  await slow.allClosed()
  t.equal(slow.sockets.size, 30, 'and nothing was opened in their place')
})

t.test('a slow name counts, and what comes too late is not sent', async (t) => {
  const { port, sockets } = await startReceiver(t, (_request, response) => response.end())
  const late: (() => void)[] = []
  const { send } = startSender(t, (name, options, callback) => {
    late.push(() => toLoopback(name, options, callback))
  })
  const answer = await send(`http://slow.test:${port}/`, { timeoutMs: 200 })
  t.match(answer, { status: undefined, reason: 'no answer in 200 ms' })
  t.ok(answer.ms < 1_200)
  for (const resolve of late) resolve()
  t.equal(late.length, 1)
  await wait(50)
  t.equal(sockets.size, 0, 'nor even connected for')
})

t.test('a TLS handshake that never ends counts', async (t) => {
  const { port, sockets, allClosed } = await startTalker(t, () => {})
  const { send } = startSender(t)
  const answer = await send(`https://127.0.0.1:${port}/`, { timeoutMs: 200 })
  t.match(answer, { status: undefined, reason: 'no answer in 200 ms' })
  await allClosed()
  t.equal(sockets.size, 1)
})

t.test('an answer as large as allowed is read, a larger one is cut and its socket closed', async (t) => {
  const { send } = startSender(t)
  const whole = await startReceiver(t, (_request, response) => response.end('x'.repeat(MAX_RESPONSE_BYTES)))
  t.match(await send(whole.url), { status: 200, body: 'x'.repeat(MAX_RESPONSE_BYTES), isCut: false })
  t.equal([...whole.sockets].filter(({ closed }) => closed).length, 0)

  const over = await startReceiver(t, (_request, response) => {
    response.writeHead(422).end('x'.repeat(MAX_RESPONSE_BYTES + 1))
  })
  t.match(await send(over.url), { status: 422, body: undefined, isCut: true })

  let written = 0
  const endless = await startTalker(t, (socket) => {
    socket.write(`${HEAD}\r\n`)
    const pour = () => {
      while (!socket.destroyed && socket.write('x'.repeat(10_000))) written += 10_000
    }
    socket.on('drain', pour)
    pour()
  })
  t.match(await send(endless.url), { status: 200, body: undefined, isCut: true })
  await endless.allClosed()
  t.ok(written < 50_000_000, `${written} bytes were poured`)
})

t.test('bytes that are no UTF-8 are no body, and nothing is decompressed', async (t) => {
  const { send } = startSender(t)
  const latin = await startReceiver(t, (_request, response) => response.end(Buffer.from('Zoë', 'latin1')))
  t.match(await send(latin.url), { status: 200, body: undefined, isCut: false })
  const bomb = gzipSync('x'.repeat(100_000))
  t.ok(bomb.length < MAX_RESPONSE_BYTES)
  const packed = await startReceiver(t, (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb)
  })
  t.match(await send(packed.url), { status: 200, body: undefined, isCut: false })
})

t.test('a connection is used again and again', async (t) => {
  const receiver = await startReceiver(t, (_request, response) => response.end('{}'))
  const { send } = startSender(t)
  for (let round = 0; round < 10; round++) {
    t.match(await send(receiver.url), { status: 200 })
    await setImmediate()
  }
  t.equal(receiver.sockets.size, 1)
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 8 }, () => send(receiver.url)))
    await setImmediate()
  }
  t.equal(receiver.sockets.size, 8, 'as many as are sent at once')
})

t.test('a redirect is an answer', async (t) => {
  let requests = 0
  const { url } = await startReceiver(t, (_request, response) => {
    requests++
    response.writeHead(307, { location: '/elsewhere' }).end()
  })
  const { send } = startSender(t)
  t.match(await send(url), { status: 307 })
  t.equal(requests, 1)
})

t.test('a connection that breaks is told, and nothing is sent twice', async (t) => {
  let requests = 0
  const { send } = startSender(t)
  const closing = { status: undefined, reason: 'the connection was closed before the answer was complete' }
  const cases: Record<string, (socket: Socket) => void> = {
    'before the answer': (socket) => socket.end(),
    'by force': (socket) => socket.resetAndDestroy(),
    'within the headers': (socket) => socket.end(`${HEAD}x-`),
    'within the body': (socket) => socket.end(`${HEAD}content-length: 100\r\n\r\nxxx`),
    'within the chunks': (socket) => socket.end(`${HEAD}transfer-encoding: chunked\r\n\r\n5\r\nxx`),
  }
  for (const [when, talk] of Object.entries(cases)) {
    requests = 0
    const { url } = await startTalker(t, (socket) => {
      requests++
      talk(socket)
    })
    t.match(await send(url), closing, when)
    t.equal(requests, 1, when)
  }
})

t.test(
  'a kept connection that the receiver closes on the next request is told, not tried again',
  async (t) => {
    let requests = 0
    const { url } = await startReceiver(t, (request, response) => {
      requests++
      if (requests === 1) response.end()
      else request.socket.destroy()
    })
    const { send } = startSender(t)
    t.match(await send(url), { status: 200 })
    await setImmediate()
    t.match(await send(url), { status: undefined, reason: /^the connection was closed/ })
    t.equal(requests, 2)
  },
)

t.test('what stands in the way of an answer is said in a few words', async (t) => {
  const { send } = startSender(t, (name, options, callback) => {
    if (name === 'receiver.test') return toLoopback(name, options, callback)
    if (name === 'inside.test') return callback(null, [{ address: '10.0.0.1', family: 4 }])
    callback(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), '')
  })
  const gone = createTcpServer().listen(0, '127.0.0.1')
  await once(gone, 'listening')
  const { port } = gone.address() as AddressInfo
  gone.close()
  await once(gone, 'close')
  const nonsense = await startTalker(t, (socket) => socket.end('220 mail.test ESMTP\r\n'))
  const flood = await startTalker(t, (socket) => socket.end(`${HEAD}x: ${'x'.repeat(100_000)}\r\n\r\n`))
  const reasons: Record<string, string | RegExp> = {
    [`http://127.0.0.1:${port}/`]: 'connection refused',
    [`http://receiver.test:${port}/`]: 'connection refused',
    'http://missing.test/': 'the name cannot be resolved',
    'http://inside.test/': 'The name inside.test leads to an address that is not allowed.',
    'http://10.0.0.1/': 'The address 10.0.0.1 is not allowed.',
    'ftp://receiver.test/': 'The URL must begin with https:// or http://.',
    [nonsense.url]: 'the answer is not valid HTTP',
    [flood.url]: 'the headers of the answer are too large',
  }
  for (const [url, reason] of Object.entries(reasons)) {
    const answer = await send(url)
    t.match(answer, { status: undefined, reason }, url)
    t.ok(Number.isInteger(answer.ms))
  }
})

t.test('a header that cannot be sent is told without it', async (t) => {
  const { url } = await startReceiver(t, (_request, response) => response.end())
  const { send } = startSender(t)
  for (const headers of [
    { 'x-token': 'hunter2\r\nx: y' },
    { 'hunter2\n': 'a' },
    { 'transfer-encoding': 'hunter2' },
    { expect: '100-continue', 'x-token': 'hunter2' },
  ]) {
    const answer = await send(url, { headers })
    t.match(answer, { status: undefined, reason: 'the URL or a header cannot be sent over HTTP' })
  }
})

t.test('a certificate that proves nothing is refused; a good one is asked for by name', async (t) => {
  const authority = await createAuthority()
  const names: unknown[] = []
  const server = createTlsServer(await authority.issue('receiver.test'), (request, response) => {
    names.push((request.socket as Socket & { servername?: string }).servername)
    response.end('{}')
  })
  const { port, sockets } = await listen(t, server, 'https')
  const { send } = startSender(t)
  t.match(await send(`https://receiver.test:${port}/`), {
    status: undefined,
    reason: /^TLS failed \((UNABLE_TO_|SELF_SIGNED_)/,
  })
  t.same(names, [])
  const { port: plain } = await startReceiver(t, (_request, response) => response.end())
  t.match(await send(`https://receiver.test:${plain}/`), { status: undefined, reason: /^TLS failed \(/ })

  // Nothing else makes a running Node.js trust the test's authority.
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
  t.teardown(() => delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'])
  const before = sockets.size
  for (let round = 0; round < 3; round++) {
    t.match(await send(`https://receiver.test:${port}/`), { status: 200, body: '{}' })
    await setImmediate()
  }
  t.same(names, ['receiver.test', 'receiver.test', 'receiver.test'])
  t.equal(sockets.size - before, 1)
})

t.test('closing ends what is on its way, and every connection', async (t) => {
  let arrived = () => {}
  const waiting = new Promise<void>((resolve) => {
    arrived = resolve
  })
  const { url, allClosed } = await startReceiver(t, (request, response) => {
    if (request.url === '/hook') response.end()
    else arrived()
  })
  const { send, close } = startSender(t)
  await send(url)
  const slow = send(`${url}/slow`)
  const silent = await startTalker(t, () => {})
  const stuck = send(silent.url, { timeoutMs: 10_000 })
  await waiting
  const closed = close()
  t.equal(close(), closed, 'twice is once')
  for (const answer of [send(url), slow, stuck]) {
    t.match(await answer, { status: undefined, reason: 'the service is stopping' })
  }
  await closed
  await Promise.all([allClosed(), silent.allClosed()])
})
