/** Counts a worker's deliveries by outcome, feeds the endpoint breaker, and asks for a pause of the subscription when one is due. */

import type { DeliveryResult } from '../endpoints/webhook-client.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import { hasFailedTooLong } from './delivery-state.ts'
import type { EndpointBreaker } from './endpoint-breaker.ts'
import type { Verdict } from './verdict.ts'

/** `retried`: the attempt failed and the job is retried later. `postponed`: it could not start, and used no attempt. */
export type DeliveryOutcome = 'delivered' | 'retried' | 'postponed' | 'failed'

/** The time that is stored in Redis or shown to people, ms since 1970. It may step; durations are measured otherwise. */
export interface DeliveryClock {
  nowMs(): number
}

export interface DeliveryRecord {
  add(result: DeliveryResult, verdict: Verdict): void
  stats(): DeliveryRecordStats
}

export interface DeliveryRecordStats extends Record<DeliveryOutcome, number> {
  /** `null`: the last delivery had no response, or no delivery has ended yet. */
  lastStatus: number | null
}

export interface DeliveryRecordDeps {
  /** A delivery has ended. */
  onEnded(outcome: DeliveryOutcome): void
  /** The subscription should be paused: the endpoint is gone (410), or has failed for too long. */
  onGone(subscription: Subscription, reason: string): void
  /** How long an endpoint may fail before its subscription is paused, ms; 0: forever. */
  pauseAfterMs: number
  clock: DeliveryClock
}

const outcomes: Record<Verdict['kind'], DeliveryOutcome> = {
  complete: 'delivered',
  retry: 'retried',
  postpone: 'postponed',
  fail: 'failed',
  gone: 'failed',
}

export function createDeliveryRecord(
  subscription: Subscription,
  breaker: EndpointBreaker,
  { onEnded, onGone, pauseAfterMs, clock }: DeliveryRecordDeps,
): DeliveryRecord {
  const counts = { delivered: 0, retried: 0, postponed: 0, failed: 0 }
  let lastStatus: number | null = null

  function fail(reason: string, retryAfterMs: number | undefined): void {
    breaker.failed(reason, retryAfterMs)
    const failingMs = breaker.failingMs()
    if (!hasFailedTooLong(failingMs, pauseAfterMs)) return
    const since = new Date(clock.nowMs() - failingMs).toISOString()
    onGone(subscription, `No delivery has succeeded since ${since}: ${reason}`)
  }

  return {
    add(result, verdict) {
      lastStatus = result.status ?? null
      const outcome = outcomes[verdict.kind]
      counts[outcome]++
      onEnded(outcome)
      if (verdict.kind === 'retry') fail(verdict.reason, verdict.afterMs)
      else if (verdict.kind === 'postpone') fail(verdict.reason, undefined)
      else if (verdict.kind === 'gone') onGone(subscription, verdict.reason)
      // An endpoint that rejects a job is healthy.
      else breaker.succeeded()
    },
    stats: () => ({ ...counts, lastStatus }),
  }
}
