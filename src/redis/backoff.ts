/** Delays before a connection or a command is tried again. Pure but for the jitter. */

const FIRST_RECONNECT_MS = 50
const LONGEST_RECONNECT_MS = 1_000
/** Retries end within this time, so that an outage is reported within the 100 ms that the contract promises. */
const RETRY_WINDOW_MS = 80
/** 10, 20 and 40 ms: three retries fit into the window. */
const FIRST_RETRY_MS = 10
/** Redis is not expected to return within the window after an outage this long, so commands fail at once. */
const KNOWN_DOWN_MS = 1_000

/** 25 % less to 25 % more, in whole ms. */
export function jitter(ms: number): number {
  return Math.round(ms * (0.75 + Math.random() / 2))
}

/** `attempt` counts from 1. */
export function reconnectDelayMs(attempt: number): number {
  return jitter(Math.min(FIRST_RECONNECT_MS * 2 ** Math.min(attempt - 1, 5), LONGEST_RECONNECT_MS))
}

export interface FailedAttempt {
  /** Retries so far. */
  retries: number
  maxRetries: number
  /** Time since the first attempt. */
  elapsedMs: number
  /** How long the connection has been down; 0 while it is up. */
  downMs: number
}

/** `undefined`: give up. Only for a command that was certainly not executed. */
export function retryDelayMs({ retries, maxRetries, elapsedMs, downMs }: FailedAttempt): number | undefined {
  if (retries >= maxRetries || downMs >= KNOWN_DOWN_MS) return undefined
  const delayMs = jitter(FIRST_RETRY_MS * 2 ** retries)
  return elapsedMs + delayMs <= RETRY_WINDOW_MS ? delayMs : undefined
}
