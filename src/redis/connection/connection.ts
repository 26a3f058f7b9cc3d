/**
 * One socket to Redis. Its states are in connection-state.ts; ioredis reconnects it.
 *
 * A connection on which a command timed out is *suspect*. Nothing new is written to it, because that would
 * only pile up in memory, until Redis replies; after another REDIS_COMMAND_TIMEOUT without a reply the socket
 * is replaced.
 */
import { nextTick } from 'node:process'
import { Redis, type RedisOptions } from 'ioredis'
import type { Logger } from 'pino'
import type { Config } from '../../config/schema.ts'
import { reconnectDelayMs } from '../backoff.ts'
import {
  commandTimedOut,
  connecting,
  connectionClosed,
  connectionReady,
  downMs,
  replyReceived,
} from './connection-state.ts'
import type { ConnectionTarget } from './redis-address.ts'

export type Role = 'commands' | 'admin' | 'events'

export interface Connection {
  readonly name: string
  readonly role: Role
  readonly client: Redis
  readonly ready: boolean
  readonly suspect: boolean
  /** How long there has been no usable connection, ms; 0 while there is one. */
  downMs(): number
  /** Reports that a command got no reply in time. */
  timedOut(): void
  /** Reports that Redis replied. */
  answered(): void
  /** Reports that a command failed with this text. */
  failed(text: string): void
  /** Buffers writes until the end of this tick, so that all commands of a tick are one write to the socket. */
  cork(): void
  /** Pending while a command waits for its retry. Later commands await it, which keeps the order of arrival. */
  retry: Promise<void> | undefined
}

export interface ConnectionDeps {
  config: Config
  target: ConnectionTarget
  log: Logger
  isClosing(): boolean
  /** Redis became usable on this connection, or ceased to be. */
  onChange(): void
  onReady(isReconnect: boolean): void
  /** Returns whether the text differs from the last one recorded. */
  onError(text: string): boolean
}

export function openConnection(role: Role, name: string, deps: ConnectionDeps): Connection {
  const { config, log, onChange, onError } = deps
  const client = createClient(config, deps.target, name)
  let state = connecting(performance.now())
  let resetTimer: NodeJS.Timeout | undefined
  let isCorked = false

  client.on('ready', () => {
    log.info({ connection: name }, 'Redis connected')
    deps.onReady(state.wasReady)
    clearTimeout(resetTimer)
    state = connectionReady()
    onChange()
  })
  client.on('close', () => {
    if (state.downSince !== undefined || deps.isClosing()) return
    state = connectionClosed(state, performance.now())
    log.warn({ connection: name }, 'Redis connection lost; reconnecting')
    onChange()
  })
  client.on('error', (error: Error) => {
    // ioredis handles one error of a socket, but TLS may emit two: our rejection of the server's certificate,
    // and the server's reply to that. The second would be uncaught.
    client.stream?.on('error', () => {})
    const reason = reasonOf(error)
    // An unreachable Redis causes the same error at every attempt.
    if (onError(reason)) log.warn({ connection: name, reason }, 'Redis connection error')
  })
  // A failed attempt is reported by the events above, and ioredis tries again.
  if (!config.BUILDING) client.connect().catch(() => {})

  function timedOut(): void {
    if (state.phase === 'suspect') return
    state = commandTimedOut(state)
    log.warn({ connection: name }, 'Redis did not answer in time; commands are held back until it does')
    resetTimer = setTimeout(() => client.disconnect(true), config.REDIS_COMMAND_TIMEOUT)
    onChange()
  }

  function answered(): void {
    if (state.phase !== 'suspect') return
    state = replyReceived(state)
    clearTimeout(resetTimer)
    onChange()
  }

  function cork(): void {
    const { stream } = client
    if (isCorked || stream === undefined) return
    isCorked = true
    stream.cork()
    nextTick(() => {
      isCorked = false
      stream.uncork()
    })
  }

  return {
    name,
    role,
    client,
    retry: undefined,
    get ready() {
      return client.status === 'ready'
    },
    get suspect() {
      return state.phase === 'suspect'
    },
    downMs: () => downMs(state, performance.now()),
    timedOut,
    answered,
    failed: onError,
    cork,
  }
}

function createClient(config: Config, { url, options: address }: ConnectionTarget, name: string): Redis {
  const options = {
    lazyConnect: true,
    connectionName: `sluice:${name}`,
    // Before Redis 7.2 no ACL can allow CLIENT SETINFO by name.
    disableClientInfo: true,
    // Commands fail at once while disconnected and when the connection breaks. Nothing piles up, ioredis
    // never sends a command twice, and the error tells the caller which of the two happened.
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: config.REDIS_CONNECT_TIMEOUT,
    keepAlive: config.REDIS_KEEP_ALIVE,
    retryStrategy: reconnectDelayMs,
    // After a failover the old address may be a replica; reconnecting finds the master.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
    ...address,
  } satisfies RedisOptions
  return url === undefined ? new Redis(options) : new Redis(url, options)
}

/**
 * The reason of an OpenSSL error without its numbers. An error for several addresses has no message, only a
 * code.
 */
function reasonOf(error: Error & { reason?: string; code?: string }): string {
  const { code = error.name, reason, message } = error
  return code.startsWith('ERR_SSL_') && reason ? `TLS: ${reason}` : message || code
}
