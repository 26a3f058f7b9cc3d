/**
 * Every command to Redis goes through here, except those of the stream reader: take a permit of the
 * semaphore, send on a usable connection, and turn a failure into a named error. A command that was certainly
 * not executed is retried for a moment. One that may have been executed is never sent again, and its error
 * says so.
 */
import type { Redis } from 'ioredis'
import type { Config } from '../../config/schema.ts'
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import { retryDelayMs } from '../backoff.ts'
import type { Connection } from '../connection/connection.ts'
import type { RedisConnections } from '../connection/connections.ts'
import { classifyRedisError, fromRedisError } from '../redis-errors.ts'
import { createDeadlines, type Deadline } from './deadlines.ts'
import { createRedisBreaker, type RedisBreakerStats } from './redis-breaker.ts'
import type { Priority, Semaphore } from './semaphore.ts'

export interface RedisOperation {
  /** Name under which the commands are counted in /stats. */
  label: string
  priority: Priority
  isWrite: boolean
  /** Commands (not round trips) that `send` writes. */
  commands: number
}

export interface RedisGateway {
  /**
   * Calls `send` with the command connection of `queue`; a write goes to the connection for durable writes if
   * there is one. Rejects only with a {@link SluiceError}; that of a write says whether it may have been
   * executed.
   */
  onQueue<T>(queue: string, operation: RedisOperation, send: (client: Redis) => Promise<T>): Promise<T>
  /** As `onQueue`, on the connection for slow commands, so that fast ones never wait behind them. */
  onAdmin<T>(operation: RedisOperation, send: (client: Redis) => Promise<T>): Promise<T>
  /** Counts commands that were sent without the gateway. */
  count(label: string, commands: number): void
  /** Commands sent since the start, by label. */
  commandsSent(): Record<string, number>
  breakerStats(): RedisBreakerStats
  close(): void
}

export function createRedisGateway(
  config: Config,
  connections: RedisConnections,
  semaphore: Semaphore,
): RedisGateway {
  const commandDeadlines = createDeadlines(config.REDIS_COMMAND_TIMEOUT)
  const adminDeadlines = createDeadlines(config.REDIS_ADMIN_TIMEOUT)
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
    if (connection.suspect) throw notExecuted('REDIS_UNAVAILABLE', 'Redis is not responding', operation)
    const deadline = (connection.role === 'admin' ? adminDeadlines : commandDeadlines).start()
    try {
      if (!semaphore.tryTake()) await waitForPermit(semaphore, operation, deadline)
      try {
        return await sendWithRetries(connection, operation, send, deadline)
      } finally {
        semaphore.release()
      }
    } finally {
      deadline.stop()
    }
  }

  async function sendWithRetries<T>(
    connection: Connection,
    operation: RedisOperation,
    send: (client: Redis) => Promise<T>,
    deadline: Deadline,
  ): Promise<T> {
    const startedAt = performance.now()
    const onReply = () => {
      connection.answered()
      breaker.answered()
    }
    let firstError: unknown
    for (let retries = 0; ; retries++) {
      // Earlier commands are waiting for their retry; overtaking them would break the order of arrival.
      if (retries === 0) while (connection.retry) await connection.retry
      try {
        count(operation.label, operation.commands)
        connection.cork()
        const reply = send(connection.client)
        reply.then(onReply, () => {})
        return await deadline.race(reply, () => {
          connection.timedOut()
          return timeoutError(operation)
        })
      } catch (error) {
        if (error instanceof SluiceError) throw error
        const { message } = error as Error
        connection.failed(message)
        const { worthRetrying, isQuota } = classifyRedisError(message)
        if (isQuota) breaker.refused(message)
        // This attempt may have been executed, and the error tells the caller so.
        if (!worthRetrying) throw fromRedisError(error, operation.isWrite)
        firstError ??= error
        const delayMs = retryDelayMs({
          retries,
          maxRetries: config.REDIS_MAX_RETRIES,
          elapsedMs: performance.now() - startedAt,
          downMs: connection.downMs(),
        })
        // The first error names the cause; later ones only say that there is no connection.
        if (delayMs === undefined) throw fromRedisError(firstError, operation.isWrite)
        await waitForRetry(connection, delayMs)
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
      commandDeadlines.close()
      adminDeadlines.close()
    },
  }
}

async function waitForPermit(
  semaphore: Semaphore,
  operation: RedisOperation,
  deadline: Deadline,
): Promise<void> {
  const controller = new AbortController()
  const permit = semaphore.take(operation.priority, controller.signal)
  try {
    await deadline.race(permit, () => {
      const reason = notExecuted('OVERLOADED', 'The operation waited too long for a permit', operation)
      controller.abort(reason)
      return reason
    })
  } catch (error) {
    // If the permit was granted just as the time ran out, return it.
    permit.then(semaphore.release, () => {})
    throw error
  }
}

/** Commands that fail together share one wait. */
async function waitForRetry(connection: Connection, ms: number): Promise<void> {
  connection.retry ??= new Promise<void>((resolve) => setTimeout(resolve, ms)).then(() => {
    connection.retry = undefined
  })
  return connection.retry
}

function notExecuted(
  code: 'REDIS_UNAVAILABLE' | 'OVERLOADED',
  problem: string,
  { isWrite }: RedisOperation,
): SluiceError {
  return new SluiceError(code, {
    detail: `${problem}. ${REPEAT_LATER}`,
    ...(isWrite ? { outcome: 'not_executed' as const } : {}),
    retryAfterS: 1,
  })
}

function timeoutError({ isWrite }: RedisOperation): SluiceError {
  return new SluiceError('REDIS_TIMEOUT', {
    ...(isWrite ? { outcome: 'unknown' as const } : {}),
    retryAfterS: 1,
  })
}
