/** Decisions of a delivery worker: how many jobs it takes, when it gives up on an endpoint, what it settles again. */
import t from 'tap'
import type { LeasedJob } from '../../../src/dispatch/leased-job.ts'
import { SluiceError } from '../../../src/errors.ts'
import { createDeliveryRecord } from '../../../src/webhooks/delivery/delivery-record.ts'
import { toSettlement } from '../../../src/webhooks/delivery/delivery-settlement.ts'
import {
  deliveryCapacity,
  hasFailedTooLong,
  replacementFor,
} from '../../../src/webhooks/delivery/delivery-state.ts'
import { createEndpointBreaker } from '../../../src/webhooks/delivery/endpoint-breaker.ts'
import type { Verdict } from '../../../src/webhooks/delivery/verdict.ts'
import type { Subscription } from '../../../src/webhooks/subscriptions/subscription.ts'

const job = { queue: 'q', key: 'k', attemptsMade: 0 } as LeasedJob
const retried = { ...job, attemptsMade: 2 }
const ok = { status: 200, ms: 7 } as never
const noResponse = { status: undefined, reason: 'timed out', ms: 9 } as never
const complete: Verdict = { kind: 'complete', result: { a: 1 } }

t.test('capacity is bounded by the concurrency, the endpoint and the batch', async (t) => {
  t.equal(deliveryCapacity(10, 3, Number.POSITIVE_INFINITY), 7)
  t.equal(deliveryCapacity(10, 3, 1), 1)
  t.equal(deliveryCapacity(10, 3, 0), 0)
  t.equal(deliveryCapacity(500, 0, Number.POSITIVE_INFINITY), 100)
  t.ok(deliveryCapacity(3, 5, Number.POSITIVE_INFINITY) <= 0, 'after the concurrency was lowered')
})

t.test('an endpoint has failed too long once the time has passed, and never without a time', async (t) => {
  t.notOk(hasFailedTooLong(1_000, 500, 1_499))
  t.ok(hasFailedTooLong(1_000, 500, 1_500))
  t.notOk(hasFailedTooLong(undefined, 500, 9_000))
  t.notOk(hasFailedTooLong(1_000, 0, 9_000_000))
})

t.test('only a failure whose backoff cannot be computed is settled again', async (t) => {
  const failed = toSettlement(job, noResponse, { kind: 'retry', reason: 'timed out', afterMs: undefined }, 0)
  const replacement = replacementFor(failed, new SluiceError('INVALID_OPTION'))
  t.match(replacement, { lease: { key: 'k' }, outcome: { outcome: 'fail', retryAfterMs: 5_000 } })
  t.equal(replacementFor(failed, new SluiceError('LEASE_LOST')), undefined)
  const completed = toSettlement(job, ok, complete, 0)
  t.equal(replacementFor(completed, new SluiceError('INVALID_OPTION')), undefined)
})

t.test('each verdict has an outcome, and a line in the log where it explains something', async (t) => {
  const at = Date.UTC(2026, 0, 2)
  t.strictSame(toSettlement(job, ok, complete, at), {
    lease: job,
    outcome: { outcome: 'complete', result: { a: 1 } },
  })
  t.equal(
    toSettlement(retried, ok, complete, at).log,
    '2026-01-02T00:00:00.000Z webhook attempt 3: answered 200 in 7 ms',
  )
  const gone = toSettlement(job, ok, { kind: 'gone', reason: 'answered 410' }, at)
  t.match(gone, { outcome: { outcome: 'release' }, log: /webhook attempt 1: answered 410$/ })
  t.match(toSettlement(job, ok, { kind: 'fail', reason: 'answered 400' }, at).outcome, {
    outcome: 'fail',
    error: { message: 'answered 400' },
    unrecoverable: true,
  })
  t.match(toSettlement(job, ok, { kind: 'retry', reason: 'busy', afterMs: 50 }, at).outcome, {
    outcome: 'fail',
    unrecoverable: false,
    retryAfterMs: 50,
  })
})

t.test('deliveries are counted; a failure opens the breaker, a rejected job does not', async (t) => {
  const breaker = createEndpointBreaker()
  const ended: string[] = []
  const gone: string[] = []
  const record = createDeliveryRecord({ queue: 'q' } as Subscription, breaker, {
    onEnded: (outcome) => ended.push(outcome),
    onGone: (_, reason) => gone.push(reason),
    pauseAfterMs: 0,
  })
  record.add(ok, complete)
  for (let i = 0; i < 5; i++)
    record.add(noResponse, { kind: 'retry', reason: 'timed out', afterMs: undefined })
  t.match(breaker.stats(), { failing: true, failuresInARow: 5 })
  t.same(record.stats(), { delivered: 1, retried: 5, failed: 0, lastStatus: null })
  record.add({ status: 422, ms: 1 } as never, { kind: 'fail', reason: 'answered 422' })
  t.match(breaker.stats(), { failing: false, failuresInARow: 0 })
  record.add({ status: 410, ms: 1 } as never, { kind: 'gone', reason: 'answered 410' })
  t.same(record.stats(), { delivered: 1, retried: 5, failed: 2, lastStatus: 410 })
  t.same(gone, ['answered 410'])
  t.equal(ended.length, 8)
})
