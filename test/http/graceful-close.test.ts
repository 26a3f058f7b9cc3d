/** Shutdown with real sockets in every state that a client can leave them in. */
import { connect, type Socket } from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { gracefulClosePlugin } from '../../src/http/clients/graceful-close.ts'

const LARGE_BYTES = 24 * 1_048_576

async function open(t: Test) {
  const app = Fastify({ forceCloseConnections: false })
  await app.register(gracefulClosePlugin)
  app.get('/small', async () => 'small')
  app.get('/large', async () => 'x'.repeat(LARGE_BYTES))
  app.get('/slow', () => new Promise((resolve) => setTimeout(() => resolve('slow'), 300)))
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const connectTo = async (path?: string): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    await new Promise((resolve) => socket.once('connect', resolve))
    if (path) socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    return socket
  }
  const close = async () => {
    const startedAt = performance.now()
    await app.close()
    return performance.now() - startedAt
  }
  return { connectTo, close }
}

const read = (socket: Socket) =>
  new Promise<number>((resolve) => {
    let bytes = 0
    socket.on('data', (chunk) => (bytes += chunk.length))
    socket.on('close', () => resolve(bytes))
  })
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

t.test('idle and unused connections are closed immediately', async (t) => {
  const { connectTo, close } = await open(t)
  const kept = await connectTo('/small')
  await new Promise((resolve) => kept.once('data', resolve))
  await connectTo()
  await pause(50)
  t.ok((await close()) < 1_000)
})

t.test('a request in flight is answered', async (t) => {
  const { connectTo, close } = await open(t)
  const answered = read(await connectTo('/slow'))
  await pause(50)
  t.ok((await close()) >= 200)
  t.ok((await answered) > 0)
})

t.test('a response on its way to a slow client arrives complete', async (t) => {
  const { connectTo, close } = await open(t)
  const slow = await connectTo('/large')
  slow.pause()
  await pause(200)
  const closed = close()
  await pause(300)
  const bytes = read(slow)
  slow.resume()
  t.ok((await bytes) > LARGE_BYTES)
  await closed
})

t.test('a client that reads nothing delays shutdown by less than four seconds', async (t) => {
  const { connectTo, close } = await open(t)
  const stuck = await connectTo('/large')
  stuck.pause()
  await pause(200)
  t.ok((await close()) < 4_000)
})
