/**
 * The connections of clients, and what each may hold. A client that takes no byte of its answer for WRITE_TIMEOUT is
 * disconnected, and so is one that pipelines too many requests. Node stops reading from neither by itself: it counts
 * bytes that wait for a socket, not requests that wait for an answer. One timer serves all connections.
 */
import type { Server } from 'node:http'
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
  /** As good as closed: no request of it is served, and no answer need be made. */
  isDropped: boolean
  /** Called once each, when the connection has closed or was dropped. */
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
  of(socket: Socket): ClientSocket
  all(): Iterable<ClientSocket>
  /** A client that pipelines too much is dropped: its connection is closed a few seconds later. */
  disconnect(client: ClientSocket, reason: DisconnectReason): void
  /** Called after each check of all connections. */
  onCheck(listener: () => void): void
  stats(): ClientSocketsStats
  /** Before the server closes, which waits for every connection. */
  closeDropped(): void
  close(): void
}

export interface ClientSocketsOptions {
  writeTimeoutMs: number
  /** How long a dropped connection stays open, more or less. */
  droppedMs?: number
}

const CHECK_MS = 250
/**
 * Closed at once, most clients would connect again at once, and each connection costs the parsing of what it sends first.
 */
const DROPPED_MS = 5_000

export function createClientSockets({
  writeTimeoutMs,
  droppedMs = DROPPED_MS,
}: ClientSocketsOptions): ClientSockets {
  const clients = new Map<Socket, ClientSocket>()
  /** Sockets that no server has announced: those of injected requests. */
  const others = new WeakMap<Socket, ClientSocket>()
  const checkListeners: (() => void)[] = []
  const disconnected: Record<DisconnectReason, number> = { writeTimeout: 0, buffered: 0, pipelined: 0 }
  const dropped = new Map<ClientSocket, NodeJS.Timeout>()
  const timer = setInterval(check, CHECK_MS)
  let isClosing = false

  function check(): void {
    const nowMs = performance.now()
    for (const client of clients.values()) {
      if (stalledMs(client.progress, client.socket, nowMs) >= writeTimeoutMs)
        disconnect(client, 'writeTimeout')
    }
    for (const listener of checkListeners) listener()
  }

  function disconnect(client: ClientSocket, reason: DisconnectReason): void {
    const { socket } = client
    if (socket.destroyed) return
    if (!client.isDropped) disconnected[reason]++
    if (reason === 'pipelined' && !isClosing) drop(client)
    else socket.destroy()
  }

  function drop(client: ClientSocket): void {
    if (client.isDropped) return
    client.isDropped = true
    leave(client)
    const { socket } = client
    socket.pause()
    // Each request that ends makes Node read on.
    socket.on('resume', () => socket.pause())
    // Spread, so that clients that were dropped together do not come back together.
    const keptMs = droppedMs * (0.5 + Math.random())
    const end = () => socket.destroy()
    dropped.set(client, setTimeout(end, keptMs))
  }

  function leave(client: ClientSocket): void {
    for (const listener of client.onClose) listener()
    client.onClose.clear()
  }

  function create(socket: Socket): ClientSocket {
    const client: ClientSocket = {
      socket,
      queued: 0,
      waits: 0,
      answerBytes: 0,
      unsentBytes: 0,
      progress: startProgress(),
      isDropped: false,
      onClose: new Set(),
    }
    socket.once('close', () => {
      clients.delete(socket)
      clearTimeout(dropped.get(client))
      dropped.delete(client)
      leave(client)
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
    of,
    all: () => clients.values(),
    disconnect,
    onCheck: (listener) => void checkListeners.push(listener),
    stats: () => ({ open: clients.size, disconnected: { ...disconnected } }),
    closeDropped() {
      isClosing = true
      for (const { socket } of dropped.keys()) socket.destroy()
    },
    close: () => clearInterval(timer),
  }
}
