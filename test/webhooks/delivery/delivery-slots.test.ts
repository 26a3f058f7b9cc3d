/** Delivery slots: how many may be in use, and that neither a key nor a queue takes what is reserved for the others. */
import t from 'tap'
import { createDeliverySlots, type DeliverySlots } from '../../../src/webhooks/delivery/delivery-slots.ts'

function join(slots: DeliverySlots, queue: string, onFree: () => void = () => {}, keyId = '') {
  return slots.join({ keyId, queue }, onFree)
}

t.test('a single queue may use every slot, and no more', async (t) => {
  const slots = createDeliverySlots(10)
  const one = join(slots, 'a', () => {})
  t.equal(one.take(8), 8)
  t.equal(one.take(8), 2)
  t.equal(one.take(1), 0)
  t.equal(slots.inUse(), 10)
  one.give(3)
  t.equal(one.take(5), 3)
})

t.test('of two queues each has a quarter reserved, whatever the other wants', async (t) => {
  const slots = createDeliverySlots(8)
  const [greedy, late] = [join(slots, 'a', () => {}), join(slots, 'b', () => {})]
  t.equal(greedy.take(100), 6)
  t.equal(late.take(100), 2)
  t.equal(slots.inUse(), 8)
  late.give(2)
  t.equal(greedy.take(1), 0, 'slots that were given back stay reserved')
})

t.test('a holder that got too few slots is notified once when slots are free again', async (t) => {
  const slots = createDeliverySlots(2)
  let notified = 0
  const one = join(slots, 'a', () => {})
  const other = join(slots, 'b', () => notified++)
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
  const holders = Array.from({ length: 10 }, (_, i) => join(slots, `q${i}`, () => {}))
  const got = holders.map((holder) => holder.take(2))
  t.same(got.slice(0, 3), [2, 1, 0])
  t.equal(slots.inUse(), 3)
})

t.test('a holder that left takes nothing, whether or not its queue has another', async (t) => {
  const slots = createDeliverySlots(8)
  const before = join(slots, 'q')
  before.leave()
  t.same([before.take(0), before.take(5)], [0, 0])
  t.equal(join(slots, 'q').take(5), 5)
  t.same([before.take(0), before.take(5)], [0, 0])
  t.equal(slots.inUse(), 5)
})

t.test('slots of a holder that left count against its successor, not against other queues', async (t) => {
  const slots = createDeliverySlots(8)
  const good = join(slots, 'good', () => {})
  const before = join(slots, 'bad', () => {})
  t.equal(before.take(100), 6)
  before.leave()
  const after = join(slots, 'bad', () => {})
  t.equal(after.take(100), 0)
  t.equal(good.take(100), 2)
  before.give(6)
  t.equal(after.take(100), 6)
})

t.test('with hundreds of queues none takes more than the common half and its share', async (t) => {
  const slots = createDeliverySlots(100)
  const greedy = join(slots, 'greedy', () => {})
  const others = Array.from({ length: 500 }, (_, i) => join(slots, `q${i}`, () => {}))
  t.equal(greedy.take(1_000), 51)
  for (const other of others.slice(0, 49)) t.equal(other.take(10), 1)
  t.equal(others[49]?.take(1), 0)
  greedy.give(51)
  t.equal(others[0]?.take(1_000), 50, 'what the greedy one gave back is for all')
})

t.test('slots that are given back while all are wanted cost little', async (t) => {
  const slots = createDeliverySlots(1_000)
  const holders = Array.from({ length: 1_000 }, (_, i) => {
    const holder = join(slots, `q${i}`, () => holder.take(1))
    return holder
  })
  for (const holder of holders) holder.take(2)
  t.equal(slots.inUse(), 1_000)
  const startedAt = performance.now()
  for (let round = 0; round < 10; round++) for (const holder of holders.slice(0, 100)) holder.give(1)
  const ms = performance.now() - startedAt
  t.ok(ms < 2_000, `${Math.round(ms)} ms for 1,000`)
})

t.test(
  'the queues of one key take nothing that is reserved for another key, however many they are',
  async (t) => {
    const slots = createDeliverySlots(100)
    const quick = join(slots, 'quick', () => {}, 'quick')
    const hanging = Array.from({ length: 500 }, (_, i) => join(slots, `h${i}`, () => {}, 'slow'))
    for (const holder of hanging) holder.take(10)
    t.equal(slots.inUse(), 75)
    t.equal(quick.take(100), 25)
    quick.give(25)
    for (const holder of hanging) holder.take(10)
    t.equal(quick.take(100), 25, 'again and again')
  },
)

t.test('the queues of one key may use every slot while no other key has a subscription', async (t) => {
  const slots = createDeliverySlots(100)
  const holders = Array.from({ length: 30 }, (_, i) => join(slots, `q${i}`, () => {}, 'only'))
  for (const holder of holders) holder.take(10)
  t.equal(slots.inUse(), 100)
})

t.test('two busy keys use every slot together', async (t) => {
  const slots = createDeliverySlots(100)
  const holders = ['a', 'b'].flatMap((key) =>
    Array.from({ length: 30 }, (_, i) => join(slots, `${key}${i}`, () => {}, key)),
  )
  for (const holder of holders) holder.take(10)
  t.equal(slots.inUse(), 100)
  for (const holder of holders.slice(0, 3)) holder.give(1)
  for (const holder of holders) holder.take(10)
  t.equal(slots.inUse(), 100)
})

t.test('a key without a delivery in flight may start one, even when all slots are in use', async (t) => {
  const slots = createDeliverySlots(10)
  const greedy = Array.from({ length: 20 }, (_, i) => join(slots, `h${i}`, () => {}, 'slow'))
  for (const holder of greedy) holder.take(10)
  t.equal(slots.inUse(), 10)
  const [one, other] = [join(slots, 'a', () => {}, 'late'), join(slots, 'b', () => {}, 'late')]
  t.equal(one.take(5), 1)
  t.equal(other.take(5), 0, 'one per key, not per queue')
  one.give(1)
  t.equal(other.take(5), 1)
  t.equal(join(slots, 'c', () => {}, 'third').take(5), 1)
  t.equal(slots.inUse(), 12)
  t.equal(greedy[0]!.take(1), 0)
})

t.test('with more keys than slots each may still have one delivery in flight', async (t) => {
  const slots = createDeliverySlots(2)
  const holders = Array.from({ length: 5 }, (_, i) => join(slots, 'q', () => {}, `key${i}`))
  t.same(
    holders.map((holder) => holder.take(10)),
    [2, 1, 1, 1, 1],
  )
})

t.test(
  'a take that found fewer jobs than it had slots is not repeated, and others are notified',
  async (t) => {
    const slots = createDeliverySlots(2)
    const notified: string[] = []
    const [one, other] = ['one', 'other'].map((queue) => join(slots, queue, () => notified.push(queue)))
    t.equal(one!.take(5), 2)
    t.equal(other!.take(5), 0)
    one!.giveUnused(2)
    t.same(notified, ['other'])
  },
)

t.test('slots of one key wake only holders that could use them', async (t) => {
  const slots = createDeliverySlots(8)
  let woken = 0
  const quick = join(slots, 'quick', () => {}, 'quick')
  const slow = Array.from({ length: 10 }, (_, i) => join(slots, `h${i}`, () => woken++, 'slow'))
  for (const holder of slow) holder.take(10)
  t.equal(slots.inUse(), 6)
  t.equal(quick.take(2), 2)
  quick.give(2)
  t.equal(woken, 0)
  slow[0]!.give(1)
  t.ok(woken > 0)
})
