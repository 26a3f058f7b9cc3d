/**
 * The one way to Redis: a permit of the semaphore, a usable connection, the command, and a named error when it fails.
 * A command that certainly never ran is tried again for a moment; one that may have run never is, and says so.
 */
import type { Redis } from 'ioredis'
import type { Config } from '../../config/schema.ts'
import { SluiceError } from '../../errors.ts'
import { type Connection, jitter, type RedisConnections } from '../connection/connections.ts'
import { classifyRedisError, fromRedisError } from '../redis-errors.ts'
import { createDeadlines, type Deadline } from './deadlines.ts'
import { createRedisBreaker, type RedisBreakerStats } from './redis-breaker.ts'
import type { Priority, Semaphore } from './semaphore.ts'

export interface RedisOperation {
  /** What the command is for; commands are counted by it. */
  label: string
  priority: Priority
  isWrite: boolean
  /** Commands (not round trips) that `send` writes. */
  commands: number
}

export interface RedisGateway {
  /** Runs `send` on the connection of `queue`, or on that for writes where there is one. Rejects with a {@link SluiceError} only. */
  onQueue<T>(queue: string, operation: RedisOperation, send: (client: Redis) => Promise<T>): Promise<T>
  /** The same on the connection for slow work, so that it never stands before fast work. */
  onAdmin<T>(operation: RedisOperation, send: (client: Redis) => Promise<T>): Promise<T>
  /** Counts a command that its sender, who waits for no permit, has sent by itself. */
  count(label: string, commands: number): void
  /** Commands sent since the start, by operation. */
  commandsSent(): Record<string, number>
  /** Whether a provider's limit keeps commands back. */
  breakerStats(): RedisBreakerStats
  close(): void
}

/** Retries end here, so that "Redis is away" is told within the 100 ms that the contract gives. */
const RETRY_WINDOW_MS = 80
/** 10, 20, 40 ms: the three tries that fit into the window. */
const FIRST_RETRY_MS = 10
/** Away longer than this, Redis is not expected back within the window: answer at once. */
const KNOWN_DOWN_MS = 1_000

export function createRedisGateway(
  config: Config,
  connections: RedisConnections,
  semaphore: Semaphore,
): RedisGateway {
  const soon = createDeadlines(config.REDIS_COMMAND_TIMEOUT)
  const late = createDeadlines(config.REDIS_ADMIN_TIMEOUT)
  const breaker = createRedisBreaker()
  const sent = new Map<string, number>()

  function count(label: string, commands: number): void {
    sent.set(label, (sent.get(label) ?? 0) + commands)
  }

  function connectionFor(queue: string, { isWrite }: RedisOperation): Connection {
    return (isWrite ? connections.writes : undefined) ?? connections.commands(queue)
  }

  async function run<T>(
    connection: Connection,
    operation: RedisOperation,
    send: (client: Redis) => Promise<T>,
  ) {
    breaker.admit()
    if (connection.suspect) throw unavailable('Redis has not answered for a while', operation)
    const deadline = (connection.role === 'admin' ? late : soon).start()
    try {
      await permit(operation, deadline)
      try {
        return await attempt(connection, operation, send, deadline)
      } finally {
        semaphore.release()
      }
    } finally {
      deadline.stop()
    }
  }

  async function permit(operation: RedisOperation, deadline: Deadline): Promise<void> {
    if (semaphore.tryTake()) return
    const controller = new AbortController()
    const waiting = semaphore.take(operation.priority, controller.signal)
    try {
      await deadline.race(waiting, () => {
        const reason = unavailable('The operation waited too long for its turn', operation, 'OVERLOADED')
        controller.abort(reason)
        return reason
      })
    } catch (error) {
      // The turn may have come in the very moment the time ran out: then there is a permit to give back.
      waiting.then(semaphore.release, () => {})
      throw error
    }
  }

  async function attempt<T>(
    connection: Connection,
    operation: RedisOperation,
    send: (client: Redis) => Promise<T>,
    deadline: Deadline,
  ): Promise<T> {
    const startedAt = performance.now()
    const answered = () => {
      connection.answered()
      breaker.answered()
    }
    let first: unknown
    for (let tries = 0; ; tries++) {
      // Somebody before us is being tried again: stay behind, or the order of arrival is lost.
      if (tries === 0) while (connection.hold) await connection.hold
      try {
        count(operation.label, operation.commands)
        connection.cork()
        const reply = send(connection.client)
        reply.then(answered, () => {})
        return await deadline.race(reply, () => {
          connection.timedOut()
          return new SluiceError('REDIS_TIMEOUT', {
            ...(operation.isWrite ? { outcome: 'unknown' as const } : {}),
            retryAfterS: 1,
          })
        })
      } catch (error) {
        if (error instanceof SluiceError) throw error
        connection.failed((error as Error).message)
        const delay = jitter(FIRST_RETRY_MS * 2 ** tries)
        const elapsed = performance.now() - startedAt
        const { worthRetrying, isQuota } = classifyRedisError((error as Error).message)
        if (isQuota) breaker.refused((error as Error).message)
        const goOn =
          worthRetrying &&
          tries < config.REDIS_MAX_RETRIES &&
          elapsed + delay <= RETRY_WINDOW_MS &&
          connection.downMs() < KNOWN_DOWN_MS
        // What went wrong first is the cause, unless the last try may have run: then that is what has to be told.
        first ??= error
        if (!goOn) throw fromRedisError(worthRetrying ? first : error, operation.isWrite)
        await holdFor(connection, delay)
      }
    }
  }

  return {
    onQueue: (queue, operation, send) => run(connectionFor(queue, operation), operation, send),
    onAdmin: (operation, send) => run(connections.admin, operation, send),
    count,
    commandsSent: () => Object.fromEntries(sent),
    breakerStats: breaker.stats,
    close() {
      soon.close()
      late.close()
    },
  }
}

/** Waits, with everything else on the connection waiting behind; several that failed together wait together. */
async function holdFor(connection: Connection, ms: number): Promise<void> {
  if (connection.hold) return connection.hold
  connection.hold = new Promise((resolve) => setTimeout(resolve, ms)).then(() => {
    connection.hold = undefined
  })
  return connection.hold
}

function unavailable(
  sentence: string,
  operation: RedisOperation,
  code: 'REDIS_UNAVAILABLE' | 'OVERLOADED' = 'REDIS_UNAVAILABLE',
) {
  return new SluiceError(code, {
    detail: `${sentence}. Repeat after Retry-After.`,
    ...(operation.isWrite ? { outcome: 'not_executed' as const } : {}),
    retryAfterS: 1,
  })
}
