/**
 * The connections of this process: `commands` × REDIS_POOL_SIZE, `admin` × 1 and `events` × 1, and one for
 * durable writes. Their number is fixed by the connection budget and does not grow with queues or clients.
 *
 * A queue always uses the same command connection, so its jobs arrive in the order they were sent. Only the
 * stream reader uses `events`, because its read blocks the connection.
 */
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import type { Config } from '../../config/schema.ts'
import { type Connection, openConnection, type Role } from './connection.ts'
import type { ConnectionBudget } from './connection-budget.ts'
import { NO_ERRORS, recordConnected, recordError } from './error-summary.ts'
import { connectionTarget, type RedisAddress } from './redis-address.ts'

export interface RedisConnections {
  /** The command connection of a queue. */
  commands(queue: string): Connection
  readonly admin: Connection
  readonly events: Connection
  /**
   * With DURABILITY_REPLICAS: carries the writes that need confirmation, so that no read waits behind a WAIT.
   */
  readonly writes: Connection | undefined
  readonly all: readonly Connection[]
  stats(): ConnectionStats
  /** Calls `listener` when Redis becomes usable on a connection or ceases to be. */
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
  /** The last error of a socket or of the server. */
  lastError: string | null
  /** The last error that reported a limit of the server or provider. */
  lastLimitError: string | null
}

/** How long closing waits for the replies of commands in flight. */
const QUIT_MS = 1_000

/** Throws if the budget does not allow the connections, or if the address or certificates cannot be used. */
export function createRedisConnections(
  config: Config,
  address: RedisAddress,
  budget: ConnectionBudget,
  log: Logger,
): RedisConnections {
  if (budget.wanted > budget.perProcess) {
    throw new Error(
      `This process needs ${budget.wanted} Redis connections, but its budget is ${budget.perProcess}: ` +
        'raise REDIS_POOL_MAX_PER_WORKER (or REDIS_PROVIDER_LIMIT), or lower REPLICAS or REDIS_POOL_SIZE',
    )
  }
  const target = connectionTarget(config, address, log)
  const listeners: (() => void)[] = []
  let isClosing = false
  let summary = NO_ERRORS
  let reconnects = 0

  function open(role: Role, name: string): Connection {
    return openConnection(role, name, {
      config,
      target,
      log,
      isClosing: () => isClosing,
      onChange() {
        for (const listener of listeners) listener()
      },
      onReady(isReconnect) {
        if (isReconnect) reconnects++
        summary = recordConnected(summary)
      },
      onError(text) {
        const isNew = text !== summary.lastError
        summary = recordError(summary, text)
        return isNew
      },
    })
  }

  const pool = Array.from({ length: config.REDIS_POOL_SIZE }, (_, index) =>
    open('commands', `commands-${index}`),
  )
  const admin = open('admin', 'admin')
  const events = open('events', 'events')
  const writes = config.DURABILITY_REPLICAS > 0 ? open('commands', 'writes') : undefined
  const all = [...pool, ...(writes ? [writes] : []), admin, events]

  function commands(queue: string): Connection {
    return pool[hash(queue) % pool.length]!
  }

  function stats(): ConnectionStats {
    const ready = all.filter((connection) => connection.ready)
    const active = ready.filter((connection) => commandsInFlight(connection.client) > 0).length
    return {
      created: all.length,
      active,
      idle: ready.length - active,
      errors: summary.errors,
      reconnects,
      byRole: { commands: all.length - 2, admin: 1, events: 1 },
      lastError: summary.lastError,
      lastLimitError: summary.lastLimitError,
    }
  }

  function onChange(listener: () => void): void {
    listeners.push(listener)
  }

  async function close(): Promise<void> {
    isClosing = true
    await Promise.all(all.map(quit))
  }

  return { commands, admin, events, writes, all, stats, onChange, close }
}

/** QUIT lets commands in flight finish. A Redis that is down or frozen does not reply to it. */
async function quit(connection: Connection): Promise<void> {
  const { client } = connection
  // Stops the timer of a suspect connection.
  connection.answered()
  const timer = setTimeout(() => client.disconnect(), QUIT_MS)
  if (connection.ready) await client.quit().catch(() => {})
  clearTimeout(timer)
  client.disconnect()
}

function commandsInFlight(client: Redis): number {
  // `commandQueue` holds the commands that await their reply. It is missing in the types of ioredis.
  return (client as unknown as { commandQueue: { length: number } }).commandQueue.length
}

/** FNV-1a. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h >>> 0
}
