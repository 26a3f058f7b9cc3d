/** What an endpoint sends reaches undici in small pieces, and not at all once the connection is destroyed. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import t from 'tap'
import { READ_BYTES, readInSmallPieces } from '../../../src/webhooks/endpoints/small-reads.ts'
import { eventually } from '../../helpers/app.ts'

const SENT_BYTES = 40_000

const server = createServer((socket: Socket) => socket.end(Buffer.alloc(SENT_BYTES, 'x')))
t.before(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
t.teardown(() => server.close())

async function received(): Promise<Socket> {
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  readInSmallPieces(socket)
  t.teardown(() => socket.destroy())
  await once(socket, 'readable')
  await eventually(() => socket.readableLength > 2 * READ_BYTES)
  return socket
}

t.test('a read returns at most 4 KiB, and all bytes arrive', async (t) => {
  const socket = await received()
  let bytes = 0
  const readAll = () => {
    for (let piece = socket.read(); piece !== null; piece = socket.read()) {
      if (piece.length > READ_BYTES) t.fail(`${piece.length} bytes`)
      bytes += piece.length
    }
  }
  socket.on('readable', readAll)
  readAll()
  await once(socket, 'end')
  t.equal(bytes, SENT_BYTES)
})

t.test('a destroyed socket has nothing more to read', async (t) => {
  const socket = await received()
  t.equal(socket.read().length, READ_BYTES)
  socket.destroy()
  t.ok(socket.readableLength > 0)
  t.equal(socket.read(), null)
})
