/**
 * The sockets: `commands` × REDIS_POOL_SIZE, `admin` × 1 and `events` × 1, each counted against the budget, whatever the
 * number of queues and clients. A queue always uses the same command connection, so its jobs arrive in the order they
 * were sent. `events` is left to the one blocking read (stream-reader.ts).
 *
 * A connection that let a command time out is *suspect*: nothing new is written to it (it would only pile up in
 * memory) until Redis says anything at all on it; silent for another timeout, it is dropped and made anew.
 */
import { nextTick } from 'node:process'
import { Redis, type RedisOptions } from 'ioredis'
import type { Logger } from 'pino'
import type { Config } from '../../config/schema.ts'
import { isLimitError } from '../redis-errors.ts'
import type { ConnectionBudget } from './connection-budget.ts'
import { type ConnectionTarget, connectionTarget, type RedisAddress } from './redis-address.ts'

export type Role = 'commands' | 'admin' | 'events'

export interface Connection {
  readonly name: string
  readonly role: Role
  readonly client: Redis
  readonly ready: boolean
  readonly suspect: boolean
  /** How long there has been no usable connection, ms; 0 while there is one. */
  downMs(): number
  /** A command on it was not answered in time. */
  timedOut(): void
  /** Redis said something on it. */
  answered(): void
  /** A command on it failed with this text. */
  failed(text: string): void
  /** Holds what is written until the end of this tick, so that commands of one tick are one write to the socket. */
  cork(): void
  /** Resolves when a command that is being tried again has gone out, so that later ones stay behind it. */
  hold: Promise<void> | undefined
}

export interface RedisConnections {
  commands(queue: string): Connection
  readonly admin: Connection
  readonly events: Connection
  /** With DURABILITY_REPLICAS: for what has to be confirmed, so that a read never stands behind a WAIT. */
  readonly writes: Connection | undefined
  readonly all: readonly Connection[]
  stats(): ConnectionStats
  /** Calls back when Redis becomes usable or ceases to be. */
  onChange(listener: () => void): void
  close(): Promise<void>
}

export interface ConnectionStats {
  created: number
  active: number
  idle: number
  errors: number
  reconnects: number
  byRole: Record<Role, number>
  /** The last error of a socket or of the server, and the last that spoke of a limit. */
  lastError: string | null
  lastLimitError: string | null
}

/** That there is no connection, or none any more, without saying why. */
const VAGUE = /enableOfflineQueue options is false|\b(ECONNRESET|EPIPE)$/

/** At the end of the service, for what is on the wire. */
const QUIT_MS = 1_000

export function createRedisConnections(
  config: Config,
  address: RedisAddress,
  budget: ConnectionBudget,
  log: Logger,
): RedisConnections {
  if (budget.wanted > budget.perProcess) {
    throw new Error(
      `This process needs ${budget.wanted} Redis connections and its budget is ${budget.perProcess}: ` +
        'raise REDIS_POOL_MAX_PER_WORKER (or REDIS_PROVIDER_LIMIT), lower REPLICAS or REDIS_POOL_SIZE',
    )
  }
  const target = connectionTarget(config, address, log)
  let closing = false
  let errors = 0
  let reconnects = 0
  let lastError: string | null = null
  /** `lastError` says why, and nothing has been connected since. */
  let isExplained = false
  let lastLimitError: string | null = null
  const listeners: (() => void)[] = []

  function open(role: Role, name: string): Connection {
    const client = createClient(config, target, name)
    let everReady = false
    let downSince = performance.now()
    let suspectSince: number | undefined
    let resetTimer: NodeJS.Timeout | undefined
    let corked = false

    const noteError = (text: string) => {
      errors++
      // A server that turns us away says why, and breaks the connection, and what comes last is chance.
      const isVague = VAGUE.test(text)
      if (!isExplained || !isVague) lastError = text
      isExplained ||= !isVague
      if (isLimitError(text)) lastLimitError = text
    }
    const changed = () => {
      for (const listener of listeners) listener()
    }
    client.on('ready', () => {
      if (everReady) reconnects++
      log.info({ connection: name }, 'Redis is connected')
      everReady = true
      isExplained = false
      downSince = 0
      connection.answered()
      changed()
    })
    client.on('close', () => {
      if (downSince === 0 && !closing) {
        downSince = performance.now()
        log.warn({ connection: name }, 'Redis connection lost; reconnecting')
        changed()
      }
    })
    client.on('error', (error: Error) => {
      // ioredis listens for one error of a socket. TLS may give two: what is wrong with the server's certificate, and
      // what the server says to being left for it. The second would end the process.
      client.stream?.on('error', () => {})
      // Told once per new text: a Redis that is away says the same thing every second.
      const reason = reasonOf(error)
      if (reason !== lastError) log.warn({ connection: name, reason }, 'Redis connection error')
      noteError(reason)
    })
    // Rejects while Redis is away; ioredis goes on trying by itself and says so through the events above.
    if (!config.BUILDING) client.connect().catch(() => {})

    const connection: Connection = {
      name,
      role,
      client,
      hold: undefined,
      get ready() {
        return client.status === 'ready'
      },
      get suspect() {
        return suspectSince !== undefined
      },
      downMs: () => (downSince === 0 ? 0 : performance.now() - downSince),
      timedOut() {
        if (suspectSince !== undefined) return
        suspectSince = performance.now()
        log.warn({ connection: name }, 'Redis did not answer in time; nothing more is sent until it does')
        resetTimer = setTimeout(() => client.disconnect(true), config.REDIS_COMMAND_TIMEOUT)
        changed()
      },
      failed: noteError,
      cork() {
        const { stream } = client
        if (corked || stream === undefined) return
        corked = true
        stream.cork()
        nextTick(() => {
          corked = false
          stream.uncork()
        })
      },
      answered() {
        if (suspectSince === undefined) return
        suspectSince = undefined
        clearTimeout(resetTimer)
        changed()
      },
    }
    return connection
  }

  const pool = Array.from({ length: config.REDIS_POOL_SIZE }, (_, index) =>
    open('commands', `commands-${index}`),
  )
  const admin = open('admin', 'admin')
  const events = open('events', 'events')
  const writes = config.DURABILITY_REPLICAS > 0 ? open('commands', 'writes') : undefined
  const all = [...pool, ...(writes ? [writes] : []), admin, events]

  return {
    commands: (queue) => pool[hash(queue) % pool.length]!,
    admin,
    events,
    writes,
    all,
    stats() {
      const ready = all.filter((connection) => connection.ready)
      const busy = ready.filter((connection) => inFlight(connection.client) > 0).length
      return {
        created: all.length,
        active: busy,
        idle: ready.length - busy,
        errors,
        reconnects,
        byRole: { commands: all.length - 2, admin: 1, events: 1 },
        lastError,
        lastLimitError,
      }
    },
    onChange(listener) {
      listeners.push(listener)
    },
    async close() {
      closing = true
      await Promise.all(
        all.map(async (connection) => {
          connection.answered()
          // QUIT lets what is on the wire finish; a Redis that is away or frozen does not answer it.
          const { client } = connection
          const givingUp = setTimeout(() => client.disconnect(), QUIT_MS)
          if (connection.ready) await client.quit().catch(() => {})
          clearTimeout(givingUp)
          client.disconnect()
        }),
      )
    },
  }
}

function createClient(config: Config, { url, options: where }: ConnectionTarget, name: string): Redis {
  const options = {
    lazyConnect: true,
    connectionName: `sluice:${name}`,
    // CLIENT SETINFO would say less, and before Redis 7.2 no ACL can allow it by name.
    disableClientInfo: true,
    // Refused at once while there is no connection, rejected at once when it breaks: nothing piles up, nothing is
    // sent twice by the library, and the caller learns which of the two it was.
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: config.REDIS_CONNECT_TIMEOUT,
    keepAlive: config.REDIS_KEEP_ALIVE,
    retryStrategy: (attempt: number) => jitter(Math.min(50 * 2 ** Math.min(attempt - 1, 5), 1_000)),
    // After a failover the old address may answer as a replica: connect anew and so find the master.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
    ...where,
  } satisfies RedisOptions
  return url === undefined ? new Redis(options) : new Redis(url, options)
}

/** Of OpenSSL the reason alone, without the numbers around it; of an attempt at several addresses the code. */
function reasonOf(error: Error & { reason?: string; code?: string }): string {
  const { code = error.name, reason, message } = error
  return code.startsWith('ERR_SSL_') && reason ? `TLS: ${reason}` : message || code
}

function inFlight(client: Redis): number {
  // ioredis keeps what it has sent and not heard of in `commandQueue` (not in its types).
  return (client as unknown as { commandQueue: { length: number } }).commandQueue.length
}

export function jitter(ms: number): number {
  return Math.round(ms * (0.75 + Math.random() / 2))
}

/** FNV-1a: the same queue, the same connection. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h >>> 0
}
