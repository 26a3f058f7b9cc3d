/** The refresh of subscriptions: what it reads from Redis, and what it applies. The store is a fake. */
import t, { type Test } from 'tap'
import type { Subscription } from '../../../src/webhooks/subscriptions/subscription.ts'
import { createSubscriptionRefresh } from '../../../src/webhooks/subscriptions/subscription-refresh.ts'

const subscription = (queue: string, revision = 'r1') => ({ queue, revision }) as Subscription

function setUp(t: Test, known: string[] = []) {
  const stored = new Map<string, Subscription>()
  const applied: [queue: string, revision: string | undefined][] = []
  const reads: string[] = []
  const store = {
    current: '1',
    failures: 0,
    version: async () => {
      reads.push('version')
      if (store.failures-- > 0) throw new Error('Redis is away')
      return store.current
    },
    all: async () => {
      reads.push('all')
      return [...stored.values()]
    },
    find: async (queue: string) => {
      reads.push(`find ${queue}`)
      return stored.get(queue)
    },
  }
  const active = {
    queues: () => known,
    apply: (queue: string, next: Subscription | undefined) => void applied.push([queue, next?.revision]),
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
