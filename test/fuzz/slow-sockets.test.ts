/**
 * Clients that send their requests byte by byte, stop in the middle or never start (slow loris): each is disconnected
 * within twice REQUEST_TIMEOUT, and other clients are not affected.
 */
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { parseResponses } from './raw-socket.ts'

const TIMEOUT_MS = 1_000
/** How often a slow client sends a byte. */
const EVERY_MS = 50
/** Clients of each kind. */
const CLIENTS = 40

const redis = await startRedis()
t.teardown(() => redis.stop())
const app = await startApp(redis, { REQUEST_TIMEOUT: `${TIMEOUT_MS}` })
t.teardown(() => app.http.close())
const url = await app.http.listen({ host: '127.0.0.1', port: 0 })
const { port } = app.http.server.address() as { port: number }
const sockets = new Set<Socket>()
app.http.server.on('connection', (socket: Socket) => {
  sockets.add(socket)
  socket.once('close', () => sockets.delete(socket))
})
const connections = promisify(app.http.server.getConnections.bind(app.http.server)) as () => Promise<number>

interface Slow {
  /** Sent immediately. */
  first?: string
  /** Sent byte by byte, repeatedly. */
  over?: string
}

const HEAD = 'POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'

const kinds: Record<string, Slow> = {
  'never sends anything': {},
  'sends half a line and stops': { first: 'GET /health/li' },
  'sends its first line byte by byte': { over: 'GET /'.padEnd(400, 'x') },
  'sends endless headers byte by byte': {
    first: 'GET /health/live HTTP/1.1\r\nHost: localhost\r\n',
    over: 'X: y\r\n',
  },
  'stops before the end of its headers': { first: HEAD },
  'sends its body byte by byte': { first: `${HEAD}Content-Length: 100000\r\n\r\n`, over: '[' },
  'announces a body and stops': { first: `${HEAD}Content-Length: 100\r\n\r\n{"name"` },
  'sends endless chunks of one byte': {
    first: `${HEAD}Transfer-Encoding: chunked\r\n\r\n`,
    over: '1\r\nx\r\n',
  },
  'completes one request and then sends byte by byte': {
    first: 'GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n',
    over: 'GET / HTTP/1.1\r\nHost: localhost\r\n'.padEnd(400, 'X'),
  },
}

interface Client {
  socket: Socket
  /** When the service closed the connection, ms from its start, and what it sent. */
  gone: Promise<{ ms: number; text: string }>
}

/** `stays`: the client does not close its half when the service closes the other. */
function startSlowClient({ first = '', over = '' }: Slow, stays = false): Client {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: stays, noDelay: true })
  const gone = new Promise<{ ms: number; text: string }>((resolve) => {
    let text = ''
    let at = 0
    let timer: NodeJS.Timeout | undefined
    let began = 0
    socket.on('connect', () => {
      began = performance.now()
      socket.write(first)
      if (over === '') return
      timer = setInterval(() => socket.writable && socket.write(over[at++ % over.length]!), EVERY_MS)
    })
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
    })
    // The connection was reset while a byte was in flight.
    socket.on('error', () => {})
    const onClosed = () => resolve({ ms: performance.now() - began, text })
    socket.on('end', onClosed)
    socket.on('close', () => {
      clearInterval(timer)
      onClosed()
    })
  })
  return { socket, gone }
}

async function latencies(count: number): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < count; i++) {
    const began = performance.now()
    const response = await fetch(`${url}/jobs`, {
      ...{
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"queue":"q","name":"n"}',
      },
    })
    await response.arrayBuffer()
    if (response.status !== 201) throw new Error(`answered ${response.status}`)
    all.push(performance.now() - began)
    await sleep(5)
  }
  return all.sort((a, b) => a - b)
}

/** Whether the service closes its end soon, which the client itself cannot observe. */
function isClosedByService(clientPort: number): Promise<boolean> {
  const socket = [...sockets].find(({ remotePort }) => remotePort === clientPort)
  return eventually(() => socket?.destroyed ?? true, 2 * TIMEOUT_MS).then(
    () => true,
    () => false,
  )
}

t.test(
  'slow clients are disconnected within twice the timeout, and other clients see no delay',
  async (t) => {
    await latencies(20)
    const before = await latencies(100)
    const slow = Object.entries(kinds).flatMap(([name, kind]) =>
      Array.from({ length: CLIENTS }, async () => ({ name, ...(await startSlowClient(kind).gone) })),
    )
    await eventually(async () => (await connections()) >= slow.length)
    const meanwhile = await latencies(100)
    for (const name of Object.keys(kinds)) {
      const all = (await Promise.all(slow)).filter((one) => one.name === name)
      const worst = Math.max(...all.map(({ ms }) => ms))
      t.ok(worst <= 2 * TIMEOUT_MS, `a client that ${name} is disconnected after ${Math.round(worst)} ms`)
      t.ok(Math.min(...all.map(({ ms }) => ms)) >= TIMEOUT_MS * 0.9, 'but not before the timeout')
      const [last] = parseResponses(Buffer.from(all[0]!.text, 'latin1')).responses.slice(-1)
      t.match(last, { status: 408, body: /"code":"REQUEST_TIMEOUT"/ }, 'with REQUEST_TIMEOUT')
    }
    const [was, is] = [before[50]!, meanwhile[50]!]
    // The bytes of the slow clients are some work as well.
    t.ok(is <= 3 * was + 5, `others: ${was.toFixed(2)} ms before, ${is.toFixed(2)} ms meanwhile`)
  },
)

t.test('a slow client that leaves its socket open is disconnected too', async (t) => {
  const all = Object.entries(kinds).map(async ([name, kind]) => {
    const { socket, gone } = startSlowClient(kind, true)
    t.teardown(() => socket.destroy())
    await gone
    t.ok(await isClosedByService(socket.localPort!), `a client that ${name}`)
  })
  await Promise.all(all)
})

t.test('a complete request may wait for longer than the timeout', async (t) => {
  const stored = await app.http.inject({
    ...{ method: 'POST', url: '/jobs', headers: { 'content-type': 'application/json' } },
    payload: '{"queue":"q","name":"n","opts":{"jobId":"waits"}}',
  })
  t.equal(stored.statusCode, 201)
  const began = performance.now()
  const response = await fetch(`${url}/jobs/q:waits?wait=3`)
  t.equal(response.status, 200)
  t.ok(performance.now() - began >= 2_900)
})

t.test('an event stream stays open for longer than the timeout', async (t) => {
  const socket = connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  let text = ''
  let isOpen = true
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.on('close', () => {
    isOpen = false
  })
  socket.write('GET /queues/q/events HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await eventually(() => text.includes('event: snapshot'))
  await sleep(3 * TIMEOUT_MS)
  t.ok(isOpen)
})
