/** Connections of a bare server: clients that read nothing, little or everything. */
import { createServer, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createClientSockets } from '../../../src/http/clients/client-sockets.ts'
import { stalledMs, startProgress } from '../../../src/http/clients/write-progress.ts'
import { eventually } from '../../helpers/app.ts'
import { openRawClient } from '../../helpers/raw-client.ts'

const WRITE_TIMEOUT_MS = 1_000
/** More than the socket buffers of both ends hold. */
const LARGE_BYTES = 48 * 1_048_576
/** What a slow client reads at a time. */
const STEP_BYTES = 2 * 1_048_576

async function open(t: Test) {
  const sockets = createClientSockets({ writeTimeoutMs: WRITE_TIMEOUT_MS })
  const waiting: ServerResponse[] = []
  const server = createServer((request, response) => {
    if (request.url === '/wait') waiting.push(response)
    else response.end(request.url === '/large' ? 'x'.repeat(LARGE_BYTES) : 'small')
  })
  sockets.watch(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    sockets.close()
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as { port: number }
  return { sockets, waiting, client: () => openRawClient(t, port) }
}

t.test('a client that reads nothing is disconnected after the write timeout, and counted', async (t) => {
  const { sockets, client } = await open(t)
  const stuck = await client()
  stuck.socket.pause()
  stuck.send({ path: '/large' })
  const startedAt = performance.now()
  await eventually(() => sockets.stats().disconnected.writeTimeout === 1)
  const elapsedMs = performance.now() - startedAt
  t.ok(elapsedMs >= WRITE_TIMEOUT_MS - 100, `after ${Math.round(elapsedMs)} ms`)
  await eventually(() => sockets.stats().open === 0)
})

t.test('a client that reads slowly for twice the write timeout keeps its connection', async (t) => {
  const { sockets, client } = await open(t)
  const slow = await client()
  slow.socket.pause()
  slow.send({ path: '/large' })
  for (const end = performance.now() + 2 * WRITE_TIMEOUT_MS; performance.now() < end; ) {
    await sleep(200)
    // The kernel wakes a writer only once a third of its buffer is free.
    const { bytesRead } = slow.socket
    slow.socket.resume()
    await eventually(() => slow.socket.bytesRead > bytesRead + STEP_BYTES)
    slow.socket.pause()
  }
  t.same(sockets.stats().disconnected.writeTimeout, 0)
  slow.socket.resume()
  await eventually(() => slow.responses().length === 1, 30_000)
})

t.test('idle connections, and those whose answer is still being made, are not touched', async (t) => {
  const { sockets, waiting, client } = await open(t)
  const idle = await client()
  idle.send({ path: '/small' })
  await eventually(() => idle.responses().length === 1)
  const unanswered = await client()
  unanswered.send({ path: '/wait' }, { path: '/large' })
  await sleep(2 * WRITE_TIMEOUT_MS)
  t.equal(sockets.stats().open, 2)
  t.notOk(idle.isClosed() || unanswered.isClosed())
  waiting[0]!.end()
  await eventually(() => unanswered.responses().length === 2, 30_000)
})

t.test('progress is a byte that the kernel has accepted, not one that Node has buffered', async (t) => {
  const progress = startProgress()
  const socket = (bytesWritten: number, writableLength: number, writeQueueSize: number) => ({
    ...{ bytesWritten, writableLength },
    _handle: { writeQueueSize },
  })
  t.equal(stalledMs(progress, socket(1_000, 1_000, 800), 0), 0, 'the first look')
  t.equal(stalledMs(progress, socket(1_000, 1_000, 800), 100), 100)
  t.equal(stalledMs(progress, socket(5_000, 5_000, 800), 200), 200, 'more was buffered')
  t.equal(stalledMs(progress, socket(5_000, 5_000, 799), 300), 0, 'part of a write was accepted')
  t.equal(stalledMs(progress, socket(5_000, 5_000, 799), 400), 100)
  t.equal(stalledMs(progress, socket(5_000, 4_000, 799), 500), 0, 'a write has completed')
  t.equal(stalledMs(progress, socket(5_000, 0, 0), 900), 0, 'nothing waits')
  t.equal(stalledMs(progress, socket(6_000, 1_000, 10), 5_000), 0)
})
