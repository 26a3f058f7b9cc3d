/** The byte budget: who holds, who waits, who is refused. */
import t from 'tap'
import { createByteBudget } from '../../../src/redis/gateway/byte-budget.ts'

/** A holder that ends when it is released. */
function createHolder() {
  let release!: () => void
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  let isHolding = false
  return {
    use: async () => {
      isHolding = true
      await released
    },
    release,
    isHolding: () => isHolding,
  }
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

t.test(
  'holders never hold more than the bound together, and the others get their turn in order',
  async (t) => {
    const budget = createByteBudget(100, 10)
    const holders = [60, 60, 30, 100].map((bytes) => ({ bytes, holder: createHolder() }))
    const all = holders.map(({ bytes, holder }) => budget.hold(bytes, holder.use))
    await settled()
    const holding = () => holders.map(({ holder }) => holder.isHolding())
    t.same(holding(), [true, false, false, false], 'a smaller one does not overtake')
    t.match(budget.stats(), { bytesInUse: 60, waiting: 3 })
    holders[0]!.holder.release()
    await settled()
    t.same(holding(), [true, true, true, false])
    t.match(budget.stats(), { bytesInUse: 90, waiting: 1 })
    holders[1]!.holder.release()
    await settled()
    t.notOk(holders[3]!.holder.isHolding())
    holders[2]!.holder.release()
    await settled()
    t.ok(holders[3]!.holder.isHolding())
    holders[3]!.holder.release()
    await Promise.all(all)
    t.strictSame(budget.stats(), { maxBytes: 100, bytesInUse: 0, waiting: 0, maxWaiting: 10, refused: 0 })
  },
)

t.test('one that wants more than all bytes gets all', async (t) => {
  const budget = createByteBudget(100, 10)
  t.equal(await budget.hold(1_000, async () => budget.stats().bytesInUse), 100)
})

t.test('at twice the bound the rest is refused, and what was held returns after a failure', async (t) => {
  const budget = createByteBudget(100, 3)
  const fail = async () => {
    await settled()
    throw new Error('no')
  }
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => budget.hold(100, fail)))
  const reasons = outcomes.map((one) => (one as PromiseRejectedResult).reason)
  t.match(reasons.slice(0, 4), Array(4).fill({ message: 'no' }))
  t.match(
    reasons.slice(4),
    Array(4).fill({
      code: 'OVERLOADED',
      details: { retryAfterS: 1, detail: /100 bytes are in flight and 3 more/ },
    }),
  )
  t.match(budget.stats(), { bytesInUse: 0, waiting: 0, refused: 4 })
})
