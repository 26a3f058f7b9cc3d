/** Decisions of a delivery worker, as functions of plain values: its capacity, and its reaction to a failure. */
import type { SluiceError } from '../../errors.ts'
import type { EndedDelivery } from './delivery-settlement.ts'

/** Most jobs that one command takes or settles. */
export const BATCH_MAX = 100

/** Replaces a backoff that only native workers can compute. */
const REPLACEMENT_BACKOFF_MS = 5_000

/**
 * How many more jobs to take; 0 or less: none. `inFlight`: all leased jobs. `endpointCapacity`: how many more the endpoint
 * breaker allows.
 */
export function deliveryCapacity(concurrency: number, inFlight: number, endpointCapacity: number): number {
  return Math.min(concurrency - inFlight, endpointCapacity, BATCH_MAX)
}

/** Whether an endpoint that has failed for `failingMs` is to be paused. `pauseAfterMs` of 0: never. */
export function hasFailedTooLong(failingMs: number | undefined, pauseAfterMs: number): failingMs is number {
  return pauseAfterMs > 0 && failingMs !== undefined && failingMs >= pauseAfterMs
}

/** The delivery to settle instead of a refused one; `undefined`: no other outcome can succeed. */
export function replacementFor(delivery: EndedDelivery, error: SluiceError): EndedDelivery | undefined {
  const { outcome } = delivery
  if (error.code !== 'INVALID_OPTION' || outcome.outcome !== 'fail') return undefined
  return { ...delivery, outcome: { ...outcome, retryAfterMs: REPLACEMENT_BACKOFF_MS } }
}
