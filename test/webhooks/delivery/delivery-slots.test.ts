/** Delivery slots: never more in use than exist, and no queue takes what is reserved for the others. */
import t from 'tap'
import { createDeliverySlots } from '../../../src/webhooks/delivery/delivery-slots.ts'

t.test('a single queue may use every slot, and no more', async (t) => {
  const slots = createDeliverySlots(10)
  const one = slots.join('a', () => {})
  t.equal(one.take(8), 8)
  t.equal(one.take(8), 2)
  t.equal(one.take(1), 0)
  t.equal(slots.inUse(), 10)
  one.give(3)
  t.equal(one.take(5), 3)
})

t.test('of two queues each has a quarter reserved, whatever the other wants', async (t) => {
  const slots = createDeliverySlots(8)
  const [greedy, late] = [slots.join('a', () => {}), slots.join('b', () => {})]
  t.equal(greedy.take(100), 6)
  t.equal(late.take(100), 2)
  t.equal(slots.inUse(), 8)
  late.give(2)
  t.equal(greedy.take(1), 0, 'slots that were given back stay reserved')
})

t.test('a holder that got too few slots is notified once when slots are free again', async (t) => {
  const slots = createDeliverySlots(2)
  let notified = 0
  const one = slots.join('a', () => {})
  const other = slots.join('b', () => notified++)
  t.equal(one.take(2), 2)
  t.equal(other.take(1), 0)
  t.equal(notified, 0)
  one.give(1)
  one.give(1)
  t.equal(notified, 1)
  other.leave()
  t.equal(one.take(2), 2, 'a queue without holders has nothing reserved')
})

t.test('with more queues than slots nothing is reserved, and the total still holds', async (t) => {
  const slots = createDeliverySlots(3)
  const holders = Array.from({ length: 10 }, (_, i) => slots.join(`q${i}`, () => {}))
  const got = holders.map((holder) => holder.take(2))
  t.same(got.slice(0, 3), [2, 1, 0])
  t.equal(slots.inUse(), 3)
})

t.test('slots of a holder that left count against its successor, not against other queues', async (t) => {
  const slots = createDeliverySlots(8)
  const good = slots.join('good', () => {})
  const before = slots.join('bad', () => {})
  t.equal(before.take(100), 6)
  before.leave()
  const after = slots.join('bad', () => {})
  t.equal(after.take(100), 0)
  t.equal(good.take(100), 2)
  before.give(6)
  t.equal(after.take(100), 6)
})

t.test('with hundreds of queues none takes more than the common half and its share', async (t) => {
  const slots = createDeliverySlots(100)
  const greedy = slots.join('greedy', () => {})
  const others = Array.from({ length: 500 }, (_, i) => slots.join(`q${i}`, () => {}))
  t.equal(greedy.take(1_000), 51)
  for (const other of others.slice(0, 49)) t.equal(other.take(10), 1)
  t.equal(others[49]?.take(1), 0)
  greedy.give(51)
  t.equal(others[0]?.take(1_000), 50, 'what the greedy one gave back is for all')
})

t.test('slots that are given back while all are wanted cost little', async (t) => {
  const slots = createDeliverySlots(1_000)
  const holders = Array.from({ length: 1_000 }, (_, i) => {
    const holder = slots.join(`q${i}`, () => holder.take(1))
    return holder
  })
  for (const holder of holders) holder.take(2)
  t.equal(slots.inUse(), 1_000)
  const startedAt = performance.now()
  for (let round = 0; round < 10; round++) for (const holder of holders.slice(0, 100)) holder.give(1)
  const ms = performance.now() - startedAt
  t.ok(ms < 2_000, `${Math.round(ms)} ms for 1,000`)
})
