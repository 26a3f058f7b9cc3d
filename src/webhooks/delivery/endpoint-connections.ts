/**
 * Connections to receivers: as many as there are deliveries at once, kept for the next ones. Not undici's Agent: for a
 * request that is aborted it opens another connection, with nobody to use it, and one that is still being made cannot be
 * given up at all.
 */
import { Client } from 'undici'
import type { AddressGuard } from './address-guard.ts'

export interface EndpointConnection {
  origin: string
  client: Client
  /** At any time: while it waits for the name, connects, sends or rests. */
  end(): Promise<void>
}

export interface EndpointConnections {
  /** One that rests, or a new one, which connects with its first request. */
  take(origin: string): EndpointConnection
  /** It may be taken again. */
  rest(connection: EndpointConnection): Promise<void>
  /** Ends all of them. */
  close(): Promise<void>
}

const KEEP_ALIVE_MS = 30_000

export function createEndpointConnections({ lookup }: Pick<AddressGuard, 'lookup'>): EndpointConnections {
  const open = new Set<EndpointConnection>()
  const resting = new Map<string, EndpointConnection[]>()

  function connect(origin: string): EndpointConnection {
    const ending = new AbortController()
    const client = new Client(origin, {
      // Every deadline is the caller's.
      connect: { lookup, signal: ending.signal, timeout: 0, maxCachedSessions: 0 },
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
      async end() {
        open.delete(connection)
        forget(connection)
        const destroyed = client.destroy()
        ending.abort()
        await destroyed
      },
    }
    open.add(connection)
    // The receiver has closed it, or it has rested for too long.
    client.on('disconnect', () => {
      if (resting.get(origin)?.includes(connection)) void connection.end()
    })
    return connection
  }

  function forget(connection: EndpointConnection): void {
    const { origin } = connection
    const others = resting.get(origin)?.filter((other) => other !== connection) ?? []
    if (others.length > 0) resting.set(origin, others)
    else resting.delete(origin)
  }

  return {
    take(origin) {
      // The one used last, so that those too many come to their end.
      const connection = resting.get(origin)?.pop()
      if (!connection) return connect(origin)
      if (resting.get(origin)?.length === 0) resting.delete(origin)
      return connection
    },
    async rest(connection) {
      const { origin, client, end } = connection
      if (!client.stats.connected) return end()
      const others = resting.get(origin)
      if (others) others.push(connection)
      else resting.set(origin, [connection])
    },
    async close() {
      await Promise.all([...open].map(({ end }) => end()))
    },
  }
}
