/**
 * Keep-alive connections to endpoints: one for each delivery in flight, reused by later deliveries. It
 * replaces undici's Agent, which opens a spare connection for every aborted request and cannot abort a
 * connection attempt.
 */
import type { LookupFunction, Socket } from 'node:net'
import { buildConnector, Client } from 'undici'
import type { AddressGuard } from './address-guard.ts'
import { readInSmallPieces } from './small-reads.ts'

export interface EndpointConnection {
  origin: string
  client: Client
  /** Whether its name is being looked up, so that nothing has been sent. */
  isResolving(): boolean
  /** `undefined` until it is connected. */
  socket(): Socket | undefined
  /** Closes the connection in any state: during the lookup, while connecting, in use or idle. */
  end(): Promise<void>
}

export interface EndpointConnections {
  /** An idle connection, or a new one that connects with its first request. */
  take(origin: string): EndpointConnection
  /** Keeps the connection idle for the next `take`; closes it if the endpoint has disconnected. */
  release(connection: EndpointConnection): Promise<void>
  /** Closes all connections, also those in use. */
  close(): Promise<void>
}

const KEEP_ALIVE_MS = 30_000
/** Of the head of a response, and of its trailers. */
const MAX_HEADER_BYTES = 16_384

export function createEndpointConnections({ lookup }: Pick<AddressGuard, 'lookup'>): EndpointConnections {
  const open = new Set<EndpointConnection>()
  const idle = new Map<string, EndpointConnection[]>()

  function connect(origin: string): EndpointConnection {
    const ending = new AbortController()
    let isResolving = false
    let connected: Socket | undefined
    const trackedLookup: LookupFunction = (name, options, callback) => {
      isResolving = true
      lookup(name, options, (...found) => {
        isResolving = false
        callback(...found)
      })
    }
    const connectSocket = buildConnector({
      lookup: trackedLookup,
      signal: ending.signal,
      // The caller enforces the one deadline, so undici's own timeouts are off.
      timeout: 0,
      maxCachedSessions: 0,
      allowH2: false,
    })
    const client = new Client(origin, {
      connect: (options, callback) =>
        connectSocket(options, (...result) => {
          connected = result[1] ?? undefined
          if (connected) readInSmallPieces(connected)
          callback(...result)
        }),
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: 0,
      bodyTimeout: 0,
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
    })
    const connection: EndpointConnection = {
      origin,
      client,
      isResolving: () => isResolving,
      socket: () => connected,
      async end() {
        open.delete(connection)
        removeIdle(connection)
        const destroyed = client.destroy()
        ending.abort()
        await destroyed
      },
    }
    open.add(connection)
    // The endpoint closed an idle connection, or its keep-alive time is over.
    client.on('disconnect', () => {
      if (idle.get(origin)?.includes(connection)) void connection.end()
    })
    return connection
  }

  function removeIdle(connection: EndpointConnection): void {
    const { origin } = connection
    const others = idle.get(origin)?.filter((other) => other !== connection) ?? []
    if (others.length > 0) idle.set(origin, others)
    else idle.delete(origin)
  }

  return {
    take(origin) {
      // The most recently used one, so that surplus connections time out.
      const connection = idle.get(origin)?.pop()
      if (!connection) return connect(origin)
      if (idle.get(origin)?.length === 0) idle.delete(origin)
      return connection
    },
    async release(connection) {
      const { origin, client, end } = connection
      if (!client.stats.connected) return end()
      const others = idle.get(origin)
      if (others) others.push(connection)
      else idle.set(origin, [connection])
    },
    async close() {
      await Promise.all([...open].map(({ end }) => end()))
    },
  }
}
