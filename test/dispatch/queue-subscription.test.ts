/** A subscription that begins while Redis is away becomes live when Redis is back, and not before. */
import t from 'tap'
import { RESUBSCRIBE_MS, subscribeWhenAvailable } from '../../src/dispatch/queue-subscription.ts'
import type { EventSubscription, QueueListener } from '../../src/events/queue-events.ts'
import { eventually } from '../helpers/app.ts'

const listener: QueueListener = { onEvent: () => {}, onGap: () => {} }

t.test(
  'it subscribes again until it succeeds; the feed of another subscriber does not make it live',
  async (t) => {
    let attempts = 0
    let closed = 0
    let begun = 0
    const subscription: EventSubscription = { position: '0-0', isLive: () => true, close: () => closed++ }
    const subscribe = async () => {
      if (++attempts < 3) throw new Error('Redis is away')
      return subscription
    }
    const began = performance.now()
    const queueSubscription = subscribeWhenAvailable({ subscribe }, 'q', listener, () => begun++)
    t.notOk(queueSubscription.isLive())
    await eventually(() => attempts === 2)
    t.notOk(queueSubscription.isLive(), 'though the feed is live')
    await eventually(() => begun === 1)
    t.ok(queueSubscription.isLive())
    t.ok(performance.now() - began >= 2 * RESUBSCRIBE_MS - 10)
    queueSubscription.end()
    t.equal(closed, 1)
  },
)

t.test('a subscription that begins after the end is closed, and none is tried after it', async (t) => {
  let closed = 0
  let attempts = 0
  let complete = (_: EventSubscription) => {}
  const subscribe = () => {
    attempts++
    return new Promise<EventSubscription>((resolve) => {
      complete = resolve
    })
  }
  const queueSubscription = subscribeWhenAvailable({ subscribe }, 'q', listener, () => t.fail('it has ended'))
  queueSubscription.end()
  complete({ position: '0-0', isLive: () => true, close: () => closed++ })
  await eventually(() => closed === 1)
  t.equal(attempts, 1)
})
