/** The refresh of subscriptions: what it reads from Redis, and what it applies. The store is a fake. */
import t, { type Test } from 'tap'
import { SluiceError } from '../../../src/errors.ts'
import type { Subscription } from '../../../src/webhooks/subscriptions/subscription.ts'
import type { StoredSubscription } from '../../../src/webhooks/subscriptions/subscription-record.ts'
import { createSubscriptionRefresh } from '../../../src/webhooks/subscriptions/subscription-refresh.ts'

const subscription = (queue: string, revision = 'r1') => ({ queue, revision }) as Subscription

function setUp(t: Test, known: string[] = []) {
  const stored = new Map<string, Subscription>()
  const applied: [queue: string, revision: string | undefined][] = []
  const reads: string[] = []
  const store = {
    current: '1' as string | undefined,
    failures: 0,
    error: new SluiceError('REDIS_UNAVAILABLE'),
    version: async () => {
      reads.push('version')
      if (store.failures-- > 0) throw store.error
      return store.current
    },
    all: async () => {
      reads.push('all')
      return { subscriptions: [...stored.values()], isComplete: stored.size <= 2 }
    },
    find: async (queue: string) => {
      reads.push(`find ${queue}`)
      return stored.get(queue)
    },
  }
  const active = {
    queues: () => known,
    apply: (queue: string, next: StoredSubscription | undefined) =>
      void applied.push([queue, next?.revision]),
  }
  const refresh = createSubscriptionRefresh(store, active, false)
  t.teardown(() => refresh.stop())
  const settled = () => new Promise<void>((resolve) => setImmediate(resolve))
  return { refresh, store, stored, applied, reads, settled }
}

t.test('a start applies every stored subscription, and removes those that are gone', async (t) => {
  const { refresh, stored, applied, settled } = setUp(t, ['gone', 'kept'])
  stored.set('kept', subscription('kept'))
  stored.set('added', subscription('added', 'r2'))
  refresh.start()
  await settled()
  t.same(
    new Map(applied),
    new Map([
      ['gone', undefined],
      ['kept', 'r1'],
      ['added', 'r2'],
    ]),
  )
})

t.test('an unchanged version costs one read', async (t) => {
  const { refresh, store, reads, settled } = setUp(t)
  refresh.start()
  await settled()
  refresh.start()
  await settled()
  t.same(reads, ['version', 'all', 'version'])
  store.current = '2'
  refresh.start()
  await settled()
  t.same(reads.slice(3), ['version', 'all'])
})

t.test('a refresh that failed reads everything the next time', async (t) => {
  const { refresh, store, stored, applied, reads, settled } = setUp(t)
  stored.set('q', subscription('q'))
  store.failures = 1
  refresh.start()
  await settled()
  t.same(applied, [])
  refresh.start()
  await settled()
  t.same(applied, [['q', 'r1']])
  t.same(reads, ['version', 'version', 'all'])
})

t.test('concurrent starts read once, and after a stop nothing is read', async (t) => {
  const { refresh, reads, settled } = setUp(t)
  refresh.start()
  refresh.start()
  await settled()
  t.same(reads, ['version', 'all'])
  refresh.stop()
  refresh.start()
  await settled()
  t.equal(reads.length, 2)
})

t.test('a reload applies one subscription as Redis has it', async (t) => {
  const { refresh, stored, applied, reads, settled } = setUp(t)
  stored.set('q', subscription('q', 'r7'))
  refresh.reload('q')
  refresh.reload('none')
  await settled()
  t.same(applied, [
    ['q', 'r7'],
    ['none', undefined],
  ])
  t.same(reads, ['find q', 'find none'])
})

t.test('without a version that can be read, everything is read each time', async (t) => {
  const { refresh, store, reads, settled } = setUp(t)
  store.current = undefined
  for (let i = 0; i < 2; i++) {
    refresh.start()
    await settled()
  }
  t.same(reads, ['version', 'all', 'version', 'all'])
})

t.test('an operator learns of subscriptions that are not read, but not of a temporary failure', async (t) => {
  const { refresh, store, stored, settled } = setUp(t)
  for (const queue of ['a', 'b', 'c']) stored.set(queue, subscription(queue))
  refresh.start()
  await settled()
  t.match(refresh.problem(), /more subscriptions than WEBHOOK_MAX_SUBSCRIPTIONS/)
  stored.delete('c')
  store.current = '2'
  store.failures = 1
  store.error = new SluiceError('QUEUE_DAMAGED')
  refresh.start()
  await settled()
  t.match(
    refresh.problem(),
    /^The subscriptions cannot be read\. A Redis key of this queue has the wrong type/,
  )
  refresh.start()
  await settled()
  t.equal(refresh.problem(), undefined)
  store.failures = 1
  store.error = new SluiceError('REDIS_UNAVAILABLE')
  refresh.start()
  await settled()
  t.equal(refresh.problem(), undefined)
})
