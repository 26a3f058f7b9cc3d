/** The lease of a job: its lock, and the options by which BullMQ settles the job. */

/** Everything needed to settle or extend a leased job. */
export interface JobLease {
  queue: string
  key: string
  /** The value of BullMQ's lock. */
  token: string
  /** The options that decide what happens when the job ends, as JSON text under BullMQ's stored names. */
  opts: string
  attemptsMade: number
  attemptsStarted: number
}

/** Stored names of the options that BullMQ reads when a job ends. The others may be large, so a lease leaves them out. */
const SETTLING_OPTIONS = [
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

/** Reads a job's stored options. Throws if the text is not JSON, which BullMQ never writes. */
export function readOptions(text: string): {
  settling: string
  attempts: number
  traceparent: string | undefined
} {
  const opts = JSON.parse(text) as Record<string, unknown>
  const kept = SETTLING_OPTIONS.filter((name) => opts[name] !== undefined).map((name) => [name, opts[name]])
  return {
    settling: JSON.stringify(Object.fromEntries(kept)),
    attempts: Math.max(1, Number(opts['attempts'] ?? 1) || 1),
    traceparent: traceparentOf(opts['tm']),
  }
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
