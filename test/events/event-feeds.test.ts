/** Which queues are followed, which one makes room for another, when a feed closes, and that an idle service costs nothing. */
import t from 'tap'
import type { QueueListener } from '../../src/events/queue-events.ts'
import { eventually } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { callsWithin, openEvents, untilBlocked } from '../helpers/streams.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

const silent: QueueListener = { onEvent: () => {}, onGap: () => {} }
const add = (prefix: string, queue: string) =>
  client.xadd(`${prefix}:${queue}:events`, '*', 'event', 'added', 'jobId', '1')

/** A sweep every 5 s closes unused feeds. */
const SWEPT_MS = 12_000

t.test('a queue is followed from the given position, and only once', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const ids = [await add(prefix, 'q'), await add(prefix, 'q'), await add(prefix, 'q')]
  const received: string[] = []
  events.onAnyEvent({ onEvent: ({ id }) => received.push(id), onGap: () => {} })
  t.equal(events.feed('q'), undefined)
  const feed = events.follow('q', ids[0]!)
  t.ok(feed)
  t.equal(feed!.position, ids[0])
  t.equal(events.feed('q'), feed)
  t.equal(events.follow('q', '0-0'), feed)
  await eventually(() => received.length >= 2)
  const [last] = [await add(prefix, 'q')]
  await eventually(() => received.at(-1) === last)
  t.same(received, [ids[1], ids[2], last])
  t.equal(feed!.position, last)
  t.match(events.stats(), { streams: 1, subscribers: 0, entries: 3 })
})

t.test('at the limit another queue is followed only once a feed is idle', async (t) => {
  const { events, prefix, pass } = await openEvents(t, redis, 2)
  const received: string[] = []
  events.onAnyEvent({ onEvent: ({ queue }) => received.push(queue), onGap: () => {} })
  const a = events.follow('a', '0-0')!
  pass(1_000)
  const b = events.follow('b', '0-0')!
  pass(8_000)
  t.equal(events.follow('c', '0-0'), undefined, 'both were used in the last 10 s')
  t.equal(events.feed('c'), undefined)
  t.equal(events.stats().streams, 2)
  // `a` is used again, so it is no longer the least recently used.
  t.equal(events.follow('a', '0-0'), a)
  pass(3_000)
  const c = events.follow('c', '0-0')!
  t.ok(c)
  t.equal(b.isClosed, true)
  t.equal(b.isLive, false)
  t.equal(a.isClosed, false)
  t.equal(events.feed('b'), undefined)
  t.equal(events.stats().streams, 2)
  await add(prefix, 'b')
  await add(prefix, 'a')
  await add(prefix, 'c')
  await eventually(() => received.includes('a') && received.includes('c'))
  t.same(received.sort(), ['a', 'c'])
})

t.test('serving a response keeps its feed open', async (t) => {
  const { events, pass } = await openEvents(t, redis, 1)
  const feed = events.follow('a', '0-0')!
  pass(15_000)
  feed.usedAtMs = Date.now() + 15_000
  t.equal(events.follow('b', '0-0'), undefined)
  pass(15_000)
  t.ok(events.follow('b', '0-0'))
  t.ok(feed.isClosed)
})

t.test('a subscription keeps its feed open; beyond the limit it is polled until there is room', async (t) => {
  const { events, prefix, pass } = await openEvents(t, redis, 1)
  const received: string[] = []
  const listener: QueueListener = {
    onEvent: ({ id }) => received.push(id),
    onGap: (gap) => received.push(gap),
  }
  await add(prefix, 'a')
  await add(prefix, 'b')
  const subscription = await events.subscribe('a', silent)
  const second = await events.subscribe('b', listener, 'k')
  t.match(events.stats(), { streams: 1, subscribers: 2, polled: 1, beyondLimit: 1 })
  t.ok(second.isLive(), 'a poll reports a change')
  await add(prefix, 'b')
  await eventually(() => received.length > 0)
  t.same(received, ['polled'])
  pass(120_000)
  t.equal(events.follow('c', '0-0'), undefined)
  subscription.close()
  t.equal(events.follow('c', '0-0'), undefined, 'it was in use until now')
  pass(11_000)
  await eventually(() => events.feed('b') !== undefined)
  t.match(events.stats(), { streams: 1, subscribers: 1, polled: 0, beyondLimit: 0 })
  const id = await client.xadd(`${prefix}:b:events`, '*', 'event', 'added', 'jobId', 'k')
  await eventually(() => received.includes(id!))
  second.close()
  t.equal(events.stats().subscribers, 0)
})

t.test('a queue that does not exist gets no feed before its first event, which is not missed', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const received: string[] = []
  const listener: QueueListener = {
    onEvent: ({ id }) => received.push(id),
    onGap: (gap) => received.push(gap),
  }
  const subscription = await events.subscribe('none', listener)
  t.equal(events.feed('none'), undefined)
  t.match(events.stats(), { streams: 0, subscribers: 1, polled: 1, beyondLimit: 0 })
  const ids = [await add(prefix, 'none'), await add(prefix, 'none')]
  await eventually(() => received.length >= 2, 1_000)
  t.same(received, ids)
  t.match(events.stats(), { streams: 1, polled: 0 })
  subscription.close()
  const here = await events.subscribe('here', listener)
  events.noteStored('here')
  t.ok(events.feed('here'), 'at once where this process stores the first job')
  here.close()
  const gone = await events.subscribe('gone', listener)
  gone.close()
  t.match(events.stats(), { polled: 0 })
})

t.test('10,000 queues that do not exist cost a bounded number of commands', async (t) => {
  const { events, gateway, prefix } = await openEvents(t, redis, 10)
  const names = Array.from({ length: 10_000 }, (_, index) => `n${index}`)
  const subscriptions = []
  for (let from = 0; from < names.length; from += 200)
    subscriptions.push(
      ...(await Promise.all(names.slice(from, from + 200).map((name) => events.subscribe(name, silent)))),
    )
  t.match(events.stats(), { streams: 0, polled: 10_000 })
  const received: string[] = []
  await add(prefix, 'real')
  const real = await events.subscribe('real', { onEvent: ({ id }) => received.push(id), onGap: () => {} })
  const before = gateway.commandsSent()['probeQueues']!
  await new Promise((resolve) => setTimeout(resolve, 2_000))
  const sent = gateway.commandsSent()['probeQueues']! - before
  t.ok(sent <= 45, `${sent} commands in 2 s`)
  const id = await add(prefix, 'real')
  await eventually(() => received.includes(id!), 1_000)
  t.equal(events.stats().status, 'live')
  for (const { close } of [...subscriptions, real]) close()
  t.match(events.stats(), { polled: 0, subscribers: 0 })
})

t.test('an unused feed closes, a subscribed one does not, and without feeds reading stops', async (t) => {
  const { events, prefix, pass } = await openEvents(t, redis)
  const received: string[] = []
  const listener: QueueListener = { onEvent: ({ id }) => received.push(id), onGap: () => {} }
  const unused = events.follow('unused', '0-0')!
  const used = events.follow('used', '0-0')!
  const subscription = await events.subscribe('subscribed', listener)
  const subscribed = events.feed('subscribed')!
  pass(61_000)
  used.usedAtMs = Date.now() + 61_000
  await eventually(() => unused.isClosed, SWEPT_MS)
  t.equal(unused.isLive, false)
  t.equal(events.feed('unused'), undefined)
  t.equal(used.isClosed, false)
  t.equal(subscribed.isClosed, false)
  t.match(events.stats(), { streams: 2, subscribers: 1 })
  const id = await add(prefix, 'subscribed')
  await eventually(() => received.length > 0)
  t.same(received, [id])

  subscription.close()
  pass(61_000)
  await eventually(() => used.isClosed && subscribed.isClosed, SWEPT_MS)
  t.match(events.stats(), { status: 'idle', streams: 0, subscribers: 0 })
  await eventually(async () => (await client.info('clients')).includes('\nblocked_clients:0'), 1_500)
  await add(prefix, 'subscribed')
  t.same(await callsWithin(client, 3_000), {}, 'without feeds no commands are sent')

  // The sweep stopped with the last feed, and must start again with the next.
  const again = await events.subscribe('subscribed', listener)
  t.not(events.feed('subscribed'), subscribed)
  const next = await add(prefix, 'subscribed')
  await eventually(() => received.at(-1) === next)
  t.same(received, [id, next], 'events from before the subscription are not delivered')
  again.close()
  pass(61_000)
  await eventually(() => events.feed('subscribed') === undefined, SWEPT_MS)
})

t.test('a queue stays followed for a minute after its subscription closes', async (t) => {
  const { events, pass } = await openEvents(t, redis)
  const subscription = await events.subscribe('q', silent)
  const feed = events.feed('q')!
  pass(300_000)
  subscription.close()
  pass(50_000)
  // The closed neighbour proves that a sweep has run.
  const neighbour = events.follow('neighbour', '0-0')!
  neighbour.usedAtMs = 0
  await eventually(() => neighbour.isClosed, SWEPT_MS)
  t.equal(feed.isClosed, false)
  pass(11_000)
  await eventually(() => feed.isClosed, SWEPT_MS)
})

t.test('a retained queue stays followed, and its events reach onAnyEvent', async (t) => {
  const { events, prefix, pass } = await openEvents(t, redis, 1)
  const received: string[] = []
  events.onAnyEvent({ onEvent: ({ id }) => received.push(id), onGap: () => {} })
  const [first, second] = await Promise.all([events.retain('q'), events.retain('q')])
  t.match(events.stats(), { streams: 1, subscribers: 2 })
  const id = await add(prefix, 'q')
  await eventually(() => received.length > 0)
  t.same(received, [id])
  first.close()
  first.close()
  t.equal(events.stats().subscribers, 1, 'closing a subscription twice counts once')
  pass(120_000)
  t.equal(events.follow('other', '0-0'), undefined)
  second.close()
  pass(11_000)
  t.ok(events.follow('other', '0-0'))
  t.equal(events.feed('q'), undefined)
})

t.test('close ends the read, and no event is delivered after it', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const received: string[] = []
  const listener: QueueListener = { onEvent: ({ id }) => received.push(id), onGap: () => {} }
  await events.subscribe('q', listener)
  await untilBlocked(client)
  const began = performance.now()
  await events.close()
  const elapsedMs = performance.now() - began
  t.ok(elapsedMs < 500, `${Math.round(elapsedMs)} ms`)
  await add(prefix, 'q')
  t.same(await callsWithin(client, 200), {})
  t.same(received, [])
})
