/** Whoever begins to listen while Redis is away hears of the queue when it is back, and not before. */
import t from 'tap'
import { RESUBSCRIBE_MS, subscribeWhenAvailable } from '../../src/dispatch/queue-subscription.ts'
import type { EventSubscription, QueueListener } from '../../src/events/queue-events.ts'
import { eventually } from '../helpers/app.ts'

const listener: QueueListener = { onEvent: () => {}, onGap: () => {} }
const feed = () => ({ isLive: true }) as never

t.test('it is asked again until it can be heard; another who hears of the queue is not us', async (t) => {
  let asked = 0
  let closed = 0
  let begun = 0
  const subscription: EventSubscription = { position: '0-0', close: () => closed++ }
  const subscribe = async () => {
    if (++asked < 3) throw new Error('Redis is away')
    return subscription
  }
  const began = performance.now()
  const hearing = subscribeWhenAvailable({ subscribe, feed }, 'q', listener, () => begun++)
  t.notOk(hearing.isLive())
  await eventually(() => asked === 2)
  t.notOk(hearing.isLive(), 'though the feed is live')
  await eventually(() => begun === 1)
  t.ok(hearing.isLive())
  t.ok(performance.now() - began >= 2 * RESUBSCRIBE_MS - 10)
  hearing.end()
  t.equal(closed, 1)
})

t.test('what begins after its end is closed, and nothing is asked after it', async (t) => {
  let closed = 0
  let asked = 0
  let answer = (_: EventSubscription) => {}
  const subscribe = () => {
    asked++
    return new Promise<EventSubscription>((resolve) => {
      answer = resolve
    })
  }
  const hearing = subscribeWhenAvailable({ subscribe, feed }, 'q', listener, () => t.fail('it has ended'))
  hearing.end()
  answer({ position: '0-0', close: () => closed++ })
  await eventually(() => closed === 1)
  t.equal(asked, 1)
})
