/**
 * Closes client connections on shutdown: idle keep-alive connections, and connections that never carried a request
 * (browsers, fetch() and load balancers open some ahead of need). Responses still on their way to a slow client are
 * flushed first, because Node counts such a connection as idle and would cut it off.
 */
import type { Socket } from 'node:net'
import fp from 'fastify-plugin'

const POLL_MS = 50
/** How long slow clients may take to read their responses. */
const FLUSH_MS = 2_000

/** Requires `forceCloseConnections: false`. Register it after every plugin that still writes during shutdown. */
export const gracefulClosePlugin = fp(async (app) => {
  const sockets = new Set<Socket>()
  let closing: NodeJS.Timeout | undefined
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const isFlushing = () => [...sockets].some(({ writableLength }) => writableLength > 0)
  app.addHook('preClose', async () => {
    const deadline = performance.now() + FLUSH_MS
    // Wait before the listener closes: closing it makes Node disconnect every connection that it counts as idle.
    while (isFlushing() && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    // Repeat until the server has closed: a connection becomes idle only after the response to its request in flight.
    closing = setInterval(() => {
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
      if (!isFlushing() || performance.now() > deadline + FLUSH_MS) app.server.closeIdleConnections()
    }, POLL_MS)
  })
  app.addHook('onClose', async () => clearInterval(closing))
})
