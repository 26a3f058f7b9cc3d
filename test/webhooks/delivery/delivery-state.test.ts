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
const clock = { nowMs: () => Date.UTC(2026, 0, 2) }
const complete: Verdict = { kind: 'complete', result: Buffer.from('{"a":1}') }

t.test('capacity is bounded by the concurrency, the endpoint and the batch', async (t) => {
  t.equal(deliveryCapacity(10, 3, Number.POSITIVE_INFINITY), 7)
  t.equal(deliveryCapacity(10, 3, 1), 1)
  t.equal(deliveryCapacity(10, 3, 0), 0)
  t.equal(deliveryCapacity(500, 0, Number.POSITIVE_INFINITY), 100)
  t.ok(deliveryCapacity(3, 5, Number.POSITIVE_INFINITY) <= 0, 'after the concurrency was lowered')
})

t.test('an endpoint has failed too long once the time has passed, and never without a time', async (t) => {
  t.notOk(hasFailedTooLong(499, 500))
  t.ok(hasFailedTooLong(500, 500))
  t.notOk(hasFailedTooLong(undefined, 500))
  t.notOk(hasFailedTooLong(9_000_000, 0))
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
    outcome: { outcome: 'complete', result: Buffer.from('{"a":1}') },
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

t.test(
  'a delivery that could not start releases its job, adds no line to its log, and opens the breaker',
  async (t) => {
    const postponed: Verdict = { kind: 'postpone', reason: 'The name a.test was not resolved in time.' }
    t.strictSame(toSettlement(job, noResponse, postponed, 0), { lease: job, outcome: { outcome: 'release' } })
    const breaker = createEndpointBreaker()
    const record = createDeliveryRecord({ queue: 'q' } as Subscription, breaker, {
      onEnded: () => {},
      onGone: () => {},
      pauseAfterMs: 0,
      clock,
    })
    for (let i = 0; i < 5; i++) record.add(noResponse, postponed)
    t.match(record.stats(), { retried: 0, postponed: 5, failed: 0 })
    t.match(breaker.stats(), { failing: true, lastError: postponed.reason })
  },
)

t.test(
  'an endpoint is paused after it has failed for long enough, whatever the wall clock does',
  async (t) => {
    let [monotonicMs, wallMs] = [0, Date.UTC(2026, 0, 2, 12)]
    const gone: string[] = []
    const record = createDeliveryRecord(
      { queue: 'q' } as Subscription,
      createEndpointBreaker(() => monotonicMs),
      {
        onEnded: () => {},
        onGone: (_, reason) => gone.push(reason),
        pauseAfterMs: 60_000,
        clock: { nowMs: () => wallMs },
      },
    )
    const fail = () => record.add(noResponse, { kind: 'retry', reason: 'timed out', afterMs: undefined })
    fail()
    wallMs += 3_600_000
    fail()
    t.same(gone, [], 'an hour forward')
    wallMs -= 7_200_000
    monotonicMs += 60_000
    fail()
    t.same(gone, ['No delivery has succeeded since 2026-01-02T10:59:00.000Z: timed out'], 'an hour back')
  },
)

t.test('deliveries are counted; a failure opens the breaker, a rejected job does not', async (t) => {
  const breaker = createEndpointBreaker()
  const ended: string[] = []
  const gone: string[] = []
  const record = createDeliveryRecord({ queue: 'q' } as Subscription, breaker, {
    onEnded: (outcome) => ended.push(outcome),
    onGone: (_, reason) => gone.push(reason),
    pauseAfterMs: 0,
    clock,
  })
  record.add(ok, complete)
  for (let i = 0; i < 5; i++)
    record.add(noResponse, { kind: 'retry', reason: 'timed out', afterMs: undefined })
  t.match(breaker.stats(), { failing: true, failuresInARow: 5 })
  t.same(record.stats(), { delivered: 1, retried: 5, postponed: 0, failed: 0, lastStatus: null })
  record.add({ status: 422, ms: 1 } as never, { kind: 'fail', reason: 'answered 422' })
  t.match(breaker.stats(), { failing: false, failuresInARow: 0 })
  record.add({ status: 410, ms: 1 } as never, { kind: 'gone', reason: 'answered 410' })
  t.same(record.stats(), { delivered: 1, retried: 5, postponed: 0, failed: 2, lastStatus: 410 })
  t.same(gone, ['answered 410'])
  t.equal(ended.length, 8)
})
