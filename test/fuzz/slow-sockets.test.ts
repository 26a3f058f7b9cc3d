/**
 * Clients that send their requests byte by byte, stop in the middle or never begin (slow-loris): each is hung up on within
 * twice the time that a request may take, and nobody else notices.
 */
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { takeApart } from './wire.ts'

const TIMEOUT_MS = 1_000
/** How often a slow client sends a byte. */
const EVERY_MS = 50
/** Of each kind. */
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
  /** Sent at once. */
  first?: string
  /** Sent byte by byte, over and over. */
  over?: string
}

const HEAD = 'POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'

const kinds: Record<string, Slow> = {
  'never says anything': {},
  'says half a line and stops': { first: 'GET /health/li' },
  'sends its first line byte by byte': { over: 'GET /'.padEnd(400, 'x') },
  'sends headers byte by byte, without end': {
    first: 'GET /health/live HTTP/1.1\r\nHost: x\r\n',
    over: 'X: y\r\n',
  },
  'stops before the end of its headers': { first: HEAD },
  'sends its body byte by byte': { first: `${HEAD}Content-Length: 100000\r\n\r\n`, over: '[' },
  'promises a body and stops': { first: `${HEAD}Content-Length: 100\r\n\r\n{"name"` },
  'sends chunks of a byte, without end': {
    first: `${HEAD}Transfer-Encoding: chunked\r\n\r\n`,
    over: '1\r\nx\r\n',
  },
  'is answered once and then dribbles': {
    first: 'GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n',
    over: 'GET / HTTP/1.1\r\nHost: x\r\n'.padEnd(400, 'X'),
  },
}

interface Client {
  socket: Socket
  /** When the service has hung up on it, ms from its connection, and what it was told. */
  gone: Promise<{ ms: number; text: string }>
}

/** `stays`: it does not close its half when it is hung up on. */
function dribble({ first = '', over = '' }: Slow, stays = false): Client {
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
    // It was broken off while a byte was on its way.
    socket.on('error', () => {})
    const hungUp = () => resolve({ ms: performance.now() - began, text })
    socket.on('end', hungUp)
    socket.on('close', () => {
      clearInterval(timer)
      hungUp()
    })
  })
  return { socket, gone }
}

async function latencies(many: number): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < many; i++) {
    const began = performance.now()
    const answer = await fetch(`${url}/jobs`, {
      ...{
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"queue":"q","name":"n"}',
      },
    })
    await answer.arrayBuffer()
    if (answer.status !== 201) throw new Error(`answered ${answer.status}`)
    all.push(performance.now() - began)
    await sleep(5)
  }
  return all.sort((a, b) => a - b)
}

/** Whether the service's end of it is closed soon, which the client itself cannot see. */
function isLetGo(clientPort: number): Promise<boolean> {
  const socket = [...sockets].find(({ remotePort }) => remotePort === clientPort)
  return eventually(() => socket?.destroyed ?? true, 2 * TIMEOUT_MS).then(
    () => true,
    () => false,
  )
}

t.test('slow clients are hung up on within twice the time, and others are answered as before', async (t) => {
  await latencies(20)
  const before = await latencies(100)
  const slow = Object.entries(kinds).flatMap(([name, kind]) =>
    Array.from({ length: CLIENTS }, async () => ({ name, ...(await dribble(kind).gone) })),
  )
  await eventually(async () => (await connections()) >= slow.length)
  const meanwhile = await latencies(100)
  for (const name of Object.keys(kinds)) {
    const all = (await Promise.all(slow)).filter((one) => one.name === name)
    const worst = Math.max(...all.map(({ ms }) => ms))
    t.ok(worst <= 2 * TIMEOUT_MS, `who ${name} is gone after ${Math.round(worst)} ms`)
    t.ok(Math.min(...all.map(({ ms }) => ms)) >= TIMEOUT_MS * 0.9, 'and had its time')
    const [last] = takeApart(Buffer.from(all[0]!.text, 'latin1')).answers.slice(-1)
    t.match(last, { status: 408, body: /"code":"REQUEST_TIMEOUT"/ }, 'and was told why')
  }
  const [was, is] = [before[50]!, meanwhile[50]!]
  // A byte of each of those who send, every 50 ms, is work as well.
  t.ok(is <= 3 * was + 5, `others: ${was.toFixed(2)} ms before, ${is.toFixed(2)} ms meanwhile`)
})

t.test('one that does not hang up in its turn is let go of all the same', async (t) => {
  const all = Object.entries(kinds).map(async ([name, kind]) => {
    const { socket, gone } = dribble(kind, true)
    t.teardown(() => socket.destroy())
    await gone
    t.ok(await isLetGo(socket.localPort!), `who ${name}`)
  })
  await Promise.all(all)
})

t.test('a request that is whole may wait for longer than that', async (t) => {
  const stored = await app.http.inject({
    ...{ method: 'POST', url: '/jobs', headers: { 'content-type': 'application/json' } },
    payload: '{"queue":"q","name":"n","opts":{"jobId":"waits"}}',
  })
  t.equal(stored.statusCode, 201)
  const began = performance.now()
  const answer = await fetch(`${url}/jobs/q:waits?wait=3`)
  t.equal(answer.status, 200)
  t.ok(performance.now() - began >= 2_900)
})

t.test('an event stream stays open for longer than that', async (t) => {
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
  socket.write('GET /queues/q/events HTTP/1.1\r\nHost: x\r\n\r\n')
  await eventually(() => text.includes('event: snapshot'))
  await sleep(3 * TIMEOUT_MS)
  t.ok(isOpen)
})
