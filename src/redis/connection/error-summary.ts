/**
 * Summarises the errors of the connections: their number, the one that explains an outage best, and the last
 * one that reported a limit. Pure.
 */
import { isLimitError } from '../redis-errors.ts'

export interface ErrorSummary {
  readonly errors: number
  /** The last error of a socket or of the server. */
  readonly lastError: string | null
  /** The last error that reported a limit of the server or provider. */
  readonly lastLimitError: string | null
  /** `lastError` names a cause, and no connection has been established since. */
  readonly isExplained: boolean
}

export const NO_ERRORS: ErrorSummary = {
  errors: 0,
  lastError: null,
  lastLimitError: null,
  isExplained: false,
}

/** Errors that report a missing connection, but not its cause. */
const UNSPECIFIC = /enableOfflineQueue options is false|\b(ECONNRESET|EPIPE)$/

/**
 * An unspecific error does not replace the one that explains it: a server that refuses a connection reports
 * the reason, then closes it.
 */
export function recordError(summary: ErrorSummary, text: string): ErrorSummary {
  const isUnspecific = UNSPECIFIC.test(text)
  return {
    errors: summary.errors + 1,
    lastError: summary.isExplained && isUnspecific ? summary.lastError : text,
    lastLimitError: isLimitError(text) ? text : summary.lastLimitError,
    isExplained: summary.isExplained || !isUnspecific,
  }
}

export function recordConnected(summary: ErrorSummary): ErrorSummary {
  return { ...summary, isExplained: false }
}
