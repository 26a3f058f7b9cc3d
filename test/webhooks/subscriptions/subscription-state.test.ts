/** Decisions about subscriptions: which worker stops or starts, what is reported, when Redis is read again. */
import t from 'tap'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import type { Subscription } from '../../../src/webhooks/subscriptions/subscription.ts'
import {
  concurrencyLimitOf,
  nextRefreshMs,
  planWorker,
  troubleOf,
} from '../../../src/webhooks/subscriptions/subscription-state.ts'

const at = '2026-01-15T12:00:00.000Z'

function subscription(fields: Partial<Subscription> = {}): Subscription {
  return {
    queue: 'emails',
    revision: 'r1',
    url: 'https://example.com/hook',
    concurrency: 7,
    timeoutMs: 15_000,
    rateLimit: null,
    headers: {},
    secrets: [],
    paused: null,
    createdAt: at,
    updatedAt: at,
    ...fields,
  }
}

const malformed = { queue: 'emails', revision: 'r1', problem: 'it is not JSON' }
const paused = { reason: 'answered 410 in 3 ms', at }

t.test('a worker starts for a new subscription, and for none that is paused', async (t) => {
  t.same(planWorker(undefined, subscription(), false), { stop: false, start: true })
  t.same(planWorker(undefined, subscription({ paused }), false), { stop: false, start: false })
  t.same(planWorker(undefined, undefined, false), { stop: false, start: false })
})

t.test('a worker is kept for the same revision and replaced for another', async (t) => {
  t.same(planWorker('r1', subscription(), false), { stop: false, start: false })
  t.same(planWorker('r0', subscription(), false), { stop: true, start: true })
})

t.test('a worker stops when its subscription is paused or removed', async (t) => {
  t.same(planWorker('r0', subscription({ paused }), false), { stop: true, start: false })
  t.same(planWorker('r1', undefined, false), { stop: true, start: false })
})

t.test('a malformed subscription has no worker', async (t) => {
  t.same(planWorker('r1', malformed, false), { stop: true, start: false })
  t.same(planWorker(undefined, malformed, false), { stop: false, start: false })
})

t.test('while the service stops no worker starts', async (t) => {
  t.same(planWorker(undefined, subscription(), true), { stop: false, start: false })
  t.same(planWorker('r0', subscription(), true), { stop: true, start: false })
})

t.test('a subscription is reported when it is paused, cannot be unsealed or fails', async (t) => {
  const stats = { failing: false, lastError: 'answered 500 in 1 ms' }
  const healthy = { stats: () => stats, takeError: (): string | undefined => undefined }
  t.equal(troubleOf(subscription({ paused }), undefined), 'is paused: answered 410 in 3 ms')
  t.match(troubleOf(subscription(), undefined), /^sends nothing: .* another SECRET/)
  t.match(troubleOf(subscription({ headers: { a: 'old' } }), undefined), /WEBHOOK_OPEN_OLD_SEALS/)
  t.equal(
    troubleOf(subscription(), { ...healthy, stats: () => ({ ...stats, failing: true }) }),
    'fails: answered 500 in 1 ms',
  )
  t.equal(troubleOf(subscription(), healthy), undefined)
  const damaged = { ...healthy, takeError: () => 'A key has the wrong type' }
  t.equal(troubleOf(subscription(), damaged), 'takes no jobs: A key has the wrong type')
  t.equal(troubleOf(malformed, undefined), 'sends nothing: it is malformed in Redis: it is not JSON')
})

t.test('a failed refresh is retried soon; only with other replicas is a good one repeated', async (t) => {
  t.equal(nextRefreshMs(false, false), 5_000)
  t.equal(nextRefreshMs(false, true), 5_000)
  t.equal(nextRefreshMs(true, true), 60_000)
  t.equal(nextRefreshMs(true, false), undefined)
})

t.test('the concurrency limit names the deliveries, and the hash that has the revision', async (t) => {
  const rateLimit = { max: 5, duration: 1_000 }
  t.same(concurrencyLimitOf(subscription({ rateLimit }), createKeyspace('bull')), {
    key: 'bull::sluice:deliveries:emails',
    limit: 7,
    owner: 'bull::sluice:subscription:emails',
    revision: 'r1',
    rateLimit,
  })
  t.equal(concurrencyLimitOf(subscription(), createKeyspace('bull')).rateLimit, undefined)
})
