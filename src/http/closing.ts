/**
 * At the end of the service its clients' connections must not hold it up: those that were answered and are kept open, and
 * those over which nothing was ever asked (browsers, fetch() and load balancers open some ahead of need). Node closes
 * the first when it is told to, and the second after the time that a request may take to arrive.
 */
import type { Socket } from 'node:net'
import fp from 'fastify-plugin'

const EVERY_MS = 50

export const closingPlugin = fp(async (app) => {
  const sockets = new Set<Socket>()
  let closing: NodeJS.Timeout | undefined
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  app.addHook('preClose', async () => {
    // Again and again: what is in flight now is idle once it has been answered.
    closing = setInterval(() => {
      app.server.closeIdleConnections()
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
    }, EVERY_MS)
  })
  app.addHook('onClose', async () => clearInterval(closing))
})
