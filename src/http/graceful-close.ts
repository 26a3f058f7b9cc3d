/**
 * At the end of the service its clients' connections must not hold it up: those that were answered and are kept open, and
 * those over which nothing was ever asked (browsers, fetch() and load balancers open some ahead of need). But what has
 * been answered and is still on its way to a slow client gets there: Node counts such a connection as idle.
 */
import type { Socket } from 'node:net'
import fp from 'fastify-plugin'

const EVERY_MS = 50
/** For those who are slow to take their answer; who takes nothing does not hold up the end for longer. */
const FLUSH_MS = 2_000

/** Wants `forceCloseConnections: false`, and to come after what still writes at the end. */
export const gracefulClosePlugin = fp(async (app) => {
  const sockets = new Set<Socket>()
  let closing: NodeJS.Timeout | undefined
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const isFlushing = () => [...sockets].some(({ writableLength }) => writableLength > 0)
  app.addHook('preClose', async () => {
    const until = performance.now() + FLUSH_MS
    // Before the listener is closed, as Node then hangs up on all that it counts as idle.
    while (isFlushing() && performance.now() < until)
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
    // Again and again: what is in flight now is idle once it has been answered.
    closing = setInterval(() => {
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
      if (!isFlushing() || performance.now() > until + FLUSH_MS) app.server.closeIdleConnections()
    }, EVERY_MS)
  })
  app.addHook('onClose', async () => clearInterval(closing))
})
