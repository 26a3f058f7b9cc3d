/** Clients of a bare server that pipeline. */
import { createServer, type ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { type ClientSocket, createClientSockets } from '../../../src/http/clients/client-sockets.ts'
import { paceRequests } from '../../../src/http/clients/pipelined-requests.ts'
import { eventually, startApp } from '../../helpers/app.ts'
import { openRawClient } from '../../helpers/raw-client.ts'
import { startRedis } from '../../helpers/redis.ts'

const MAX_PIPELINED = 100
/** How long each request holds the event loop. */
const WORK_MS = 5
const DROPPED_MS = 400

async function open(t: Test) {
  const sockets = createClientSockets({ writeTimeoutMs: 30_000, droppedMs: DROPPED_MS })
  const waiting: ServerResponse[] = []
  const served: string[] = []
  let onServed = () => {}
  const server = createServer(
    paceRequests(sockets, MAX_PIPELINED, ({ url }, response) => {
      served.push(url!)
      onServed()
      if (url === '/work') for (const end = performance.now() + WORK_MS; performance.now() < end; );
      if (url === '/wait') waiting.push(response)
      else response.end('done')
    }),
  )
  sockets.watch(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    sockets.closeDropped()
    sockets.close()
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as { port: number }
  return {
    ...{ sockets, waiting, served },
    client: () => openRawClient(t, port),
    onServed(listener: () => void) {
      onServed = listener
    },
  }
}

const repeat = (count: number, path: string) => Array.from({ length: count }, () => ({ path }))

t.test('a client may pipeline up to the bound, again and again', async (t) => {
  const { served, client } = await open(t)
  const polite = await client()
  for (let round = 1; round <= 3; round++) {
    const paths = Array.from({ length: MAX_PIPELINED }, (_, index) => ({ path: `/${round}-${index}` }))
    polite.send(...paths)
    await eventually(() => polite.responses().length === round * MAX_PIPELINED)
    t.same(
      served.splice(0),
      paths.map(({ path }) => path),
      'served in order',
    )
  }
  t.notOk(polite.isClosed())
})

t.test('pipelined requests do not hold up the requests of other clients', async (t) => {
  const { served, client, onServed } = await open(t)
  const [other, greedy] = [await client(), await client()]
  onServed(() => {
    onServed(() => {})
    other.send({ path: '/other' })
  })
  greedy.send(...repeat(MAX_PIPELINED, '/work'))
  await eventually(() => served.length === MAX_PIPELINED + 1)
  const before = served.indexOf('/other')
  t.ok(before <= MAX_PIPELINED / 2, `${before} of ${MAX_PIPELINED} were served before another client's`)
  await eventually(() => greedy.responses().length === MAX_PIPELINED)
})

t.test('a client that pipelines twice the bound is served no more, then disconnected', async (t) => {
  const { sockets, served, waiting, client } = await open(t)
  const [other, greedy] = [await client(), await client()]
  other.send({ path: '/other' })
  greedy.send({ path: '/wait' })
  await eventually(() => served.length === 2)
  let hasLeft = false
  const isGreedy = ({ socket }: ClientSocket) => socket.remotePort === greedy.socket.localPort
  for (const one of sockets.all()) if (isGreedy(one)) one.onClose.add(() => (hasLeft = true))
  const droppedAt = performance.now()
  greedy.send(...repeat(2 * MAX_PIPELINED, '/work'))
  await eventually(() => sockets.stats().disconnected.pipelined === 1)
  const servedThen = served.length
  t.ok(servedThen <= 2 + MAX_PIPELINED, `${servedThen} requests were begun`)
  t.ok(hasLeft, 'what it waits for ends at once')
  t.notOk(greedy.isClosed(), 'it cannot connect again at once')
  const { socket } = [...sockets.all()].find(({ isDropped }) => isDropped)!
  const { bytesRead } = socket
  waiting[0]!.end()
  greedy.send(...repeat(10_000, '/work'))
  await eventually(greedy.isClosed)
  t.equal(socket.bytesRead, bytesRead, 'what it sends is not read')
  t.ok(performance.now() - droppedAt >= DROPPED_MS / 4)
  t.equal(served.length, servedThen)
  t.equal(sockets.stats().disconnected.pipelined, 1)
  t.equal(sockets.stats().open, 1)
  other.send({ path: '/other' })
  await eventually(() => other.responses().length === 2)
})

t.test('requests of a client that has gone are not begun', async (t) => {
  const { served, client, onServed } = await open(t)
  const gone = await client()
  onServed(() => gone.socket.destroy())
  gone.send(...repeat(MAX_PIPELINED, '/work'))
  await eventually(gone.isClosed)
  const other = await client()
  onServed(() => {})
  other.send({ path: '/other' })
  await eventually(() => served.includes('/other'))
  t.ok(served.length < MAX_PIPELINED / 2, `${served.length} requests were begun`)
})

t.test('a dropped client does not hold up the shutdown', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await startApp(redis, { MAX_PIPELINED_REQUESTS: '4' })
  const stats = async () => (await app.http.inject('/stats')).json()
  const port = Number(new URL(await app.http.listen({ port: 0, host: '127.0.0.1' })).port)
  const greedy = await openRawClient(t, port)
  greedy.send(...repeat(20, '/stats'))
  await eventually(async () => (await stats()).connections.disconnected.pipelined === 1)
  const startedAt = performance.now()
  await app.http.close()
  const ms = Math.round(performance.now() - startedAt)
  t.ok(ms < 1_500, `closed after ${ms} ms`)
})
