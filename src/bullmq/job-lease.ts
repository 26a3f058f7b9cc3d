/** What it takes to settle a job through BullMQ: its lock, and those of its options that decide what becomes of it. */

/** What it takes to settle a job; a lease says no more. */
export interface JobLease {
  queue: string
  key: string
  /** The value of BullMQ's lock. */
  token: string
  /** Those options that decide what becomes of it: BullMQ's stored names, JSON text. */
  opts: string
  attemptsMade: number
  attemptsStarted: number
}

/** Stored names of the options that BullMQ asks about when a job ends or fails; the rest may be large. */
const SETTLING = [
  'attempts',
  'backoff',
  'lifo',
  'removeOnComplete',
  'removeOnFail',
  'stackTraceLimit',
  'kl',
  'fpof',
  'cpof',
  'idof',
  'rdof',
]

/** Throws when the text is not JSON, which BullMQ writes nowhere. */
export function readOptions(text: string): {
  settling: string
  attempts: number
  traceparent: string | undefined
} {
  const opts = JSON.parse(text) as Record<string, unknown>
  const kept = SETTLING.filter((name) => opts[name] !== undefined).map((name) => [name, opts[name]])
  return {
    settling: JSON.stringify(Object.fromEntries(kept)),
    attempts: Math.max(1, Number(opts['attempts'] ?? 1) || 1),
    traceparent: traceparentOf(opts['tm']),
  }
}

/** BullMQ keeps the carrier of a trace as JSON text. */
function traceparentOf(carrier: unknown): string | undefined {
  if (typeof carrier !== 'string') return undefined
  try {
    const { traceparent } = JSON.parse(carrier) as { traceparent?: unknown }
    return typeof traceparent === 'string' ? traceparent : undefined
  } catch {
    return undefined
  }
}
