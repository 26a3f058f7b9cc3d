/**
 * The options of a stored job by which BullMQ settles it. Producers in any language write them, so each option that BullMQ
 * cannot use is left out: with it, BullMQ's scripts would fail after they have removed the job from its list.
 */

export interface StoredOptions {
  /** As JSON text under BullMQ's stored names. */
  settling: string
  /** Number of attempts that the job has in total. */
  attempts: number
  traceparent: string | undefined
}

export const NO_OPTIONS: StoredOptions = { settling: '{}', attempts: 1, traceparent: undefined }

type Usable = (value: unknown) => unknown

/** By stored name: the usable value, or `undefined`. The other options may be large, so a lease leaves them out. */
const SETTLING_OPTIONS: Readonly<Record<string, Usable>> = {
  attempts: attemptsOf,
  backoff: backoffOf,
  lifo: flagOf,
  removeOnComplete: retentionOf,
  removeOnFail: retentionOf,
  stackTraceLimit: countOf,
  kl: countOf,
  fpof: flagOf,
  cpof: flagOf,
  idof: flagOf,
  rdof: flagOf,
}

const settlingOptions = Object.entries(SETTLING_OPTIONS)

/** `undefined` if the text is not a JSON object. Producers in PHP write an empty one as `[]`. */
export function readOptions(text = '{}'): StoredOptions | undefined {
  const opts = parseObject(text)
  if (!opts) return undefined
  const kept: Record<string, unknown> = {}
  for (const [name, usable] of settlingOptions) {
    if (opts[name] === undefined) continue
    const value = usable(opts[name])
    if (value !== undefined) kept[name] = value
  }
  return {
    settling: JSON.stringify(kept),
    attempts: Math.max(1, Math.ceil(attemptsOf(opts['attempts']) ?? 1)),
    traceparent: traceparentOf(opts['tm']),
  }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text || '{}')
    if (typeof value !== 'object' || value === null) return undefined
    return Array.isArray(value) && value.length > 0 ? undefined : (value as Record<string, unknown>)
  } catch {
    return undefined
  }
}

/** BullMQ compares with it, so a fraction and the text of a number count as well. */
function attemptsOf(value: unknown): number | undefined {
  const attempts = typeof value === 'string' ? Number(value) : value
  if (typeof attempts !== 'number' || !(attempts > 0)) return undefined
  return Math.min(attempts, Number.MAX_SAFE_INTEGER)
}

function countOf(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined
}

function flagOf(value: unknown): true | undefined {
  return value ? true : undefined
}

/** Longer names would make the lease's token too long to be sent back. */
const BACKOFF_TYPE_MAX = 100

/** A delay in ms, or a type with its settings. */
function backoffOf(value: unknown): unknown {
  if (typeof value === 'number') return delayOf(value)
  if (typeof value !== 'object' || value === null) return undefined
  const { type, delay, jitter } = value as Record<string, unknown>
  if (typeof type !== 'string' || type.length > BACKOFF_TYPE_MAX) return undefined
  const isUsable = typeof jitter === 'number' && jitter >= 0 && jitter <= 1
  return { type, delay: delayOf(delay) ?? 0, ...(isUsable ? { jitter } : {}) }
}

/** A century. With longer delays the scores by which BullMQ sorts delayed jobs are no longer exact. */
const DELAY_MAX_MS = 3_153_600_000_000
/** By this delay a backoff says that the job is not retried. */
const NO_RETRY = -1

function delayOf(value: unknown): number | undefined {
  const ms = Number(value)
  return ms === NO_RETRY || (ms >= 0 && ms <= DELAY_MAX_MS) ? ms : undefined
}

/** Whether to remove the job, how many to keep, or how many and how long. */
function retentionOf(value: unknown): unknown {
  if (typeof value === 'boolean') return value
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : undefined
  if (typeof value !== 'object' || value === null) return undefined
  const { age, count, limit } = value as Record<string, unknown>
  const kept = {
    ...(typeof age === 'number' && age >= 0 && Number.isFinite(age) ? { age } : {}),
    ...(Number.isSafeInteger(count) ? { count } : {}),
    ...(Number.isSafeInteger(limit) && (limit as number) > 0 ? { limit } : {}),
  }
  return Object.keys(kept).length > 0 ? kept : undefined
}

/** BullMQ stores the carrier of a trace as JSON text. */
function traceparentOf(carrier: unknown): string | undefined {
  if (typeof carrier !== 'string') return undefined
  try {
    const { traceparent } = JSON.parse(carrier) as { traceparent?: unknown }
    return typeof traceparent === 'string' ? traceparent : undefined
  } catch {
    return undefined
  }
}
