/**
 * Classifies an error of ioredis or Redis: the error code for the client, whether the command may have been
 * executed, and whether a retry can help. The patterns match the texts of redis-server 7.0, ioredis 6.0 and
 * Upstash.
 */
import { type ErrorCode, type ExecutionOutcome, SluiceError } from '../errors.ts'

export interface RedisErrorClass {
  code: ErrorCode
  outcome: ExecutionOutcome
  /** The cause is temporary, and the command was certainly not executed. */
  worthRetrying: boolean
  /** A limit on all commands, not on this one: the next command will be refused as well. */
  isQuota: boolean
}

function errorClass(
  code: ErrorCode,
  outcome: ExecutionOutcome,
  worthRetrying = false,
  isQuota = false,
): RedisErrorClass {
  return { code, outcome, worthRetrying, isQuota }
}

const UNREACHABLE_UNSENT = errorClass('REDIS_UNAVAILABLE', 'not_executed', true)
const UNREACHABLE_SENT = errorClass('REDIS_UNAVAILABLE', 'unknown')

const errorClasses: [RegExp, RedisErrorClass][] = [
  // ioredis, before the command was written
  [/enableOfflineQueue options is false/, UNREACHABLE_UNSENT],
  // ioredis, after the command was written
  [/^Reached the max retries per request limit|^Connection is closed|^Command aborted/, UNREACHABLE_SENT],
  [/\b(ECONNREFUSED|ENOENT|ENOTFOUND|EAI_AGAIN)\b/, UNREACHABLE_UNSENT],
  [/\b(EPIPE|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)\b/, UNREACHABLE_SENT],
  // Redis, before running the command
  [/^LOADING\b/, errorClass('REDIS_LOADING', 'not_executed', true)],
  [/^(READONLY|MASTERDOWN)\b/, errorClass('REDIS_READONLY', 'not_executed', true)],
  [/^(MISCONF|NOREPLICAS)\b/, errorClass('REDIS_MISCONFIGURED', 'not_executed')],
  [/^OOM\b|DB capacity quota exceeded/, errorClass('REDIS_FULL', 'not_executed')],
  [/^(NOAUTH|WRONGPASS|NOPERM)\b/, errorClass('REDIS_DENIED', 'not_executed')],
  // `rename-command`, or a provider that leaves the command out
  [/^ERR unknown command/, errorClass('REDIS_DENIED', 'not_executed')],
  // A script that the ACL stopped midway may already have written.
  [/^ERR The user executing the script can't /, errorClass('REDIS_DENIED', 'unknown')],
  [/^(BUSY|TRYAGAIN|CLUSTERDOWN)\b/, errorClass('REDIS_UNAVAILABLE', 'not_executed', true)],
  // Limits of the server (maxclients) and of Upstash
  [
    /max number of clients reached|max (daily )?requests? limit exceeded|max concurrent connections exceeded/i,
    errorClass('REDIS_LIMIT', 'not_executed', false, true),
  ],
  [/max (request|key|single record) size exceeded/i, errorClass('REDIS_LIMIT', 'not_executed')],
  // A key of BullMQ has another type. A script that stops at it may already have written.
  [/\bWRONGTYPE\b/, errorClass('QUEUE_DAMAGED', 'unknown')],
]

/** An unknown text is INTERNAL, and its outcome unknown. */
export function classifyRedisError(text: string): RedisErrorClass {
  // Redis 7 reports the error of a command inside a script as it is; 6.2 puts a sentence about the script
  // before it.
  const plain = text.replace(/^ERR (Error running script .*?: -?)?(?=[A-Z]{3,} )/, '')
  return errorClasses.find(([pattern]) => pattern.test(plain))?.[1] ?? errorClass('INTERNAL', 'unknown')
}

/** Whether the server or provider refused a command because of a limit. */
export function isLimitError(text: string): boolean {
  return classifyRedisError(text).code === 'REDIS_LIMIT'
}

/** `use`: what the key is for, such as "which lists the queues". `repair`: what an operator can do, a sentence. */
export function ownKeyDamaged(key: string, use: string, repair: string): SluiceError {
  const name = /^[\x21-\x7e]+$/.test(key) ? key : JSON.stringify(key)
  const detail = `The Redis key ${name}, ${use}, has the wrong type: something else wrote it. Operator: ${repair}`
  return new SluiceError('QUEUE_DAMAGED', { detail, outcome: 'not_executed' })
}

/**
 * The error for the client. That of a write states whether it may have been executed. A SluiceError is
 * returned unchanged.
 */
export function fromRedisError(cause: unknown, isWrite: boolean): SluiceError {
  if (cause instanceof SluiceError) return cause
  const text = cause instanceof Error ? cause.message : String(cause)
  const { code, outcome } = classifyRedisError(text)
  return new SluiceError(code, { ...(isWrite ? { outcome } : {}), cause })
}
