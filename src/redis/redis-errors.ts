/**
 * What an error of ioredis or Redis means: a named error for the client, whether the command can have run, and whether
 * sending it again is worth it. The texts are those that redis-server 7.0, ioredis 6.0 and Upstash really give.
 */
import { type ErrorCode, type ExecutionOutcome, SluiceError } from '../errors.ts'

export interface RedisErrorClass {
  code: ErrorCode
  outcome: ExecutionOutcome
  /** True for a passing state of a command that was certainly not executed. */
  worthRetrying: boolean
  /** A provider's limit on all commands, not on this one: the next will be refused as well. */
  isQuota: boolean
}

const fault = (
  code: ErrorCode,
  outcome: ExecutionOutcome,
  worthRetrying = false,
  isQuota = false,
): RedisErrorClass => ({
  code,
  outcome,
  worthRetrying,
  isQuota,
})

const UNREACHABLE_UNSENT = fault('REDIS_UNAVAILABLE', 'not_executed', true)
const UNREACHABLE_SENT = fault('REDIS_UNAVAILABLE', 'unknown')

const faults: [RegExp, RedisErrorClass][] = [
  // ioredis, before anything was written
  [/enableOfflineQueue options is false/, UNREACHABLE_UNSENT],
  // ioredis, with the command on the wire
  [/^Reached the max retries per request limit|^Connection is closed|^Command aborted/, UNREACHABLE_SENT],
  [/\b(ECONNREFUSED|ENOENT|ENOTFOUND|EAI_AGAIN)\b/, UNREACHABLE_UNSENT],
  [/\b(EPIPE|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)\b/, UNREACHABLE_SENT],
  // Redis refused it before running it
  [/^LOADING\b/, fault('REDIS_LOADING', 'not_executed', true)],
  [/^(READONLY|MASTERDOWN)\b/, fault('REDIS_READONLY', 'not_executed', true)],
  [/^(MISCONF|NOREPLICAS)\b/, fault('REDIS_MISCONFIGURED', 'not_executed')],
  [/^OOM\b|DB capacity quota exceeded/, fault('REDIS_FULL', 'not_executed')],
  [/^(NOAUTH|WRONGPASS|NOPERM)\b/, fault('REDIS_DENIED', 'not_executed')],
  // The ACL, found out within a script, which may have written before.
  [/^ERR The user executing the script can't /, fault('REDIS_DENIED', 'unknown')],
  [/^(BUSY|TRYAGAIN|CLUSTERDOWN)\b/, fault('REDIS_UNAVAILABLE', 'not_executed', true)],
  // Limits of the server (maxclients) and of Upstash
  [
    /max number of clients reached|max (daily )?requests? limit exceeded|max concurrent connections exceeded/i,
    fault('REDIS_LIMIT', 'not_executed', false, true),
  ],
  [/max (request|key|single record) size exceeded/i, fault('REDIS_LIMIT', 'not_executed')],
  // A key that is not what BullMQ makes of it, which a script may have found out only after it had written elsewhere.
  [/\bWRONGTYPE\b/, fault('QUEUE_DAMAGED', 'unknown')],
]

/** Names the error behind a text; a text that nobody knows may hide anything, so its outcome is unknown. */
export function classifyRedisError(text: string): RedisErrorClass {
  // An error inside a script is that of the command (Redis 7), or stands at the end of a sentence about the script (6.2).
  const plain = text.replace(/^ERR (Error running script .*?: -?)?(?=[A-Z]{3,} )/, '')
  return faults.find(([pattern]) => pattern.test(plain))?.[1] ?? fault('INTERNAL', 'unknown')
}

/** True for what a provider or server says when a limit is reached, whatever the command was. */
export function isLimitError(text: string): boolean {
  return classifyRedisError(text).code === 'REDIS_LIMIT'
}

const ADVICE: Partial<Record<ErrorCode, string>> = {
  REDIS_UNAVAILABLE: 'Redis cannot be reached; the service reconnects by itself.',
  REDIS_LOADING: 'Redis is loading its data into memory; this passes.',
  REDIS_READONLY: 'Redis answers as a read-only replica; a failover is likely under way.',
  REDIS_FULL: 'Redis is out of memory: let workers drain the queues, or raise maxmemory.',
}

/** The client-visible error for a Redis error; of a write it says whether it may have happened. */
export function fromRedisError(cause: unknown, isWrite: boolean): SluiceError {
  if (cause instanceof SluiceError) return cause
  const text = cause instanceof Error ? cause.message : String(cause)
  const { code, outcome } = classifyRedisError(text)
  const detail = ADVICE[code]
  return new SluiceError(code, {
    ...(detail === undefined ? {} : { detail }),
    ...(isWrite ? { outcome } : {}),
    cause,
  })
}
