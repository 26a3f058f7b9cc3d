/** Places: never more than there are, and none takes what half of them promises to the others. */
import t from 'tap'
import { createDeliverySlots } from '../../../src/webhooks/delivery/delivery-slots.ts'

t.test('alone one may have all of them, and no more', async (t) => {
  const places = createDeliverySlots(10)
  const one = places.join('a', () => {})
  t.equal(one.take(8), 8)
  t.equal(one.take(8), 2)
  t.equal(one.take(1), 0)
  t.equal(places.inUse(), 10)
  one.give(3)
  t.equal(one.take(5), 3)
})

t.test('of two each has a quarter for itself, whatever the other wants', async (t) => {
  const places = createDeliverySlots(8)
  const [greedy, late] = [places.join('a', () => {}), places.join('b', () => {})]
  t.equal(greedy.take(100), 6)
  t.equal(late.take(100), 2)
  t.equal(places.inUse(), 8)
  late.give(2)
  t.equal(greedy.take(1), 0, 'what was given back stays promised')
})

t.test('who got fewer than it wanted is told when there are some again, once', async (t) => {
  const places = createDeliverySlots(2)
  let told = 0
  const one = places.join('a', () => {})
  const other = places.join('b', () => told++)
  t.equal(one.take(2), 2)
  t.equal(other.take(1), 0)
  t.equal(told, 0)
  one.give(1)
  one.give(1)
  t.equal(told, 1)
  other.leave()
  t.equal(one.take(2), 2, 'who has left has no share')
})

t.test('more who want them than there are places: no share, and never more than there are', async (t) => {
  const places = createDeliverySlots(3)
  const all = Array.from({ length: 10 }, (_, i) => places.join(`q${i}`, () => {}))
  const got = all.map((holder) => holder.take(2))
  t.same(got.slice(0, 3), [2, 1, 0])
  t.equal(places.inUse(), 3)
})

t.test('what one has left behind counts for the next of its queue, not for others', async (t) => {
  const places = createDeliverySlots(8)
  const good = places.join('good', () => {})
  const before = places.join('bad', () => {})
  t.equal(before.take(100), 6)
  before.leave()
  const after = places.join('bad', () => {})
  t.equal(after.take(100), 0)
  t.equal(good.take(100), 2)
  before.give(6)
  t.equal(after.take(100), 6)
})
