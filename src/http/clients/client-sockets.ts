/**
 * The connections of clients, and what each may hold. A client that takes no byte of its answer for WRITE_TIMEOUT is
 * disconnected, and so is one that pipelines too many requests. Node stops reading from neither by itself: it counts
 * bytes that wait for a socket, not requests that wait for an answer. One timer serves all connections.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Progress, stalledMs, startProgress } from './write-progress.ts'

export interface ClientSocket {
  readonly socket: Socket
  /** Requests whose answer has to wait for another one, since HTTP/1.1 answers in order. */
  queued: number
  /** Waits (waits.ts). */
  waits: number
  /** Bytes of large answers that have not been sent completely (send-budget.ts). */
  answerBytes: number
  /** Bytes that count towards MAX_BUFFERED_BYTES, as of the last check and the answers since. */
  unsentBytes: number
  progress: Progress
  /** Called once each, when the connection has closed. */
  readonly onClose: Set<() => void>
}

export type DisconnectReason = 'writeTimeout' | 'buffered' | 'pipelined'

export interface ClientSocketsStats {
  open: number
  disconnected: Record<DisconnectReason, number>
}

export interface ClientSockets {
  /** Keeps the connections of the server from now on. */
  watch(server: Server): void
  /** False: the connection is gone, and the request must not be served. */
  admit(request: IncomingMessage, response: ServerResponse): boolean
  of(socket: Socket): ClientSocket
  all(): Iterable<ClientSocket>
  disconnect(client: ClientSocket, reason: DisconnectReason): void
  /** Called after each check of all connections. */
  onCheck(listener: () => void): void
  stats(): ClientSocketsStats
  close(): void
}

export interface ClientSocketsOptions {
  writeTimeoutMs: number
  /** Most requests of one connection whose answer waits for another one. */
  maxPipelined: number
}

const CHECK_MS = 250

export function createClientSockets({ writeTimeoutMs, maxPipelined }: ClientSocketsOptions): ClientSockets {
  const clients = new Map<Socket, ClientSocket>()
  /** Sockets that no server has announced: those of injected requests. */
  const others = new WeakMap<Socket, ClientSocket>()
  const checkListeners: (() => void)[] = []
  const disconnected: Record<DisconnectReason, number> = { writeTimeout: 0, buffered: 0, pipelined: 0 }
  const timer = setInterval(check, CHECK_MS)

  function check(): void {
    const nowMs = performance.now()
    for (const client of clients.values()) {
      if (stalledMs(client.progress, client.socket, nowMs) >= writeTimeoutMs)
        disconnect(client, 'writeTimeout')
    }
    for (const listener of checkListeners) listener()
  }

  function disconnect({ socket }: ClientSocket, reason: DisconnectReason): void {
    if (socket.destroyed) return
    disconnected[reason]++
    socket.destroy()
  }

  function create(socket: Socket): ClientSocket {
    const client: ClientSocket = {
      socket,
      queued: 0,
      waits: 0,
      answerBytes: 0,
      unsentBytes: 0,
      progress: startProgress(),
      onClose: new Set(),
    }
    socket.once('close', () => {
      clients.delete(socket)
      for (const listener of client.onClose) listener()
      client.onClose.clear()
    })
    return client
  }

  function of(socket: Socket): ClientSocket {
    const known = clients.get(socket) ?? others.get(socket)
    if (known) return known
    const created = create(socket)
    others.set(socket, created)
    return created
  }

  return {
    watch: (server) => server.on('connection', (socket: Socket) => clients.set(socket, create(socket))),
    admit({ socket }, response) {
      // The only request of its connection, as of every client that does not pipeline.
      if (response.socket !== null) return true
      if (socket.destroyed) return false
      const client = of(socket)
      if (client.queued >= maxPipelined) {
        disconnect(client, 'pipelined')
        return false
      }
      client.queued++
      response.once('finish', () => client.queued--)
      return true
    },
    of,
    all: () => clients.values(),
    disconnect,
    onCheck: (listener) => void checkListeners.push(listener),
    stats: () => ({ open: clients.size, disconnected: { ...disconnected } }),
    close: () => clearInterval(timer),
  }
}
