/** What holds up the end of the service, and what does not: real sockets in every state that a client can leave them in. */
import { connect, type Socket } from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { gracefulClosePlugin } from '../../src/http/graceful-close.ts'

const LARGE_BYTES = 24 * 1_048_576

async function open(t: Test) {
  const app = Fastify({ forceCloseConnections: false })
  await app.register(gracefulClosePlugin)
  app.get('/small', async () => 'small')
  app.get('/large', async () => 'x'.repeat(LARGE_BYTES))
  app.get('/slow', () => new Promise((resolve) => setTimeout(() => resolve('slow'), 300)))
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const ask = async (path?: string): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    await new Promise((resolve) => socket.once('connect', resolve))
    if (path) socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    return socket
  }
  const closes = async () => {
    const began = performance.now()
    await app.close()
    return performance.now() - began
  }
  return { ask, closes }
}

const read = (socket: Socket) =>
  new Promise<number>((resolve) => {
    let bytes = 0
    socket.on('data', (chunk) => (bytes += chunk.length))
    socket.on('close', () => resolve(bytes))
  })
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

t.test('connections that are kept open, and those that were never used, are closed at once', async (t) => {
  const { ask, closes } = await open(t)
  const kept = await ask('/small')
  await new Promise((resolve) => kept.once('data', resolve))
  await ask()
  await pause(50)
  t.ok((await closes()) < 1_000)
})

t.test('a request that is under way is answered', async (t) => {
  const { ask, closes } = await open(t)
  const answered = read(await ask('/slow'))
  await pause(50)
  t.ok((await closes()) >= 200)
  t.ok((await answered) > 0)
})

t.test('an answer that is on its way to a slow client gets there whole', async (t) => {
  const { ask, closes } = await open(t)
  const slow = await ask('/large')
  slow.pause()
  await pause(200)
  const closed = closes()
  await pause(300)
  const bytes = read(slow)
  slow.resume()
  t.ok((await bytes) > LARGE_BYTES)
  await closed
})

t.test('a client that takes nothing holds it up for no longer than two seconds', async (t) => {
  const { ask, closes } = await open(t)
  const stuck = await ask('/large')
  stuck.pause()
  await pause(200)
  t.ok((await closes()) < 4_000)
})
