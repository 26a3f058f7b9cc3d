/**
 * Counts the requests that were refused or failed, by code, and decides which of them are logged: at most 20 a second for
 * each code, and then one line that says how many were left out. A flood of refused requests would otherwise cost more in
 * log lines than in anything else.
 */
import type { Logger } from 'pino'
import type { ErrorCode } from '../errors.ts'

export interface Refusals {
  /** Counts one. Returns the log if a line may be written for it. */
  note(code: ErrorCode): Logger | undefined
  /** Since the start, by code. */
  counts(): Record<string, number>
  close(): void
}

interface Counted {
  total: number
  /** Lines in this window. */
  logged: number
  leftOut: number
}

const LINES_MAX = 20
const WINDOW_MS = 1_000

/** `log`: `undefined` logs nothing. */
export function createRefusals(log: Logger | undefined): Refusals {
  const byCode = new Map<ErrorCode, Counted>()
  /** Runs only while something was refused. */
  let window: NodeJS.Timeout | undefined

  function endWindow(): void {
    window = undefined
    for (const [code, counted] of byCode) {
      if (counted.leftOut > 0)
        log?.warn({ code, leftOut: counted.leftOut }, 'More requests were refused or failed')
      counted.logged = 0
      counted.leftOut = 0
    }
  }

  return {
    note(code) {
      const counted = byCode.get(code) ?? { total: 0, logged: 0, leftOut: 0 }
      if (counted.total++ === 0) byCode.set(code, counted)
      if (!log) return undefined
      window ??= setTimeout(endWindow, WINDOW_MS)
      if (counted.logged < LINES_MAX) {
        counted.logged++
        return log
      }
      counted.leftOut++
      return undefined
    },
    counts: () => Object.fromEntries([...byCode].map(([code, { total }]) => [code, total])),
    close() {
      clearTimeout(window)
      if (window) endWindow()
    },
  }
}
