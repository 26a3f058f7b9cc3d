/** Which queues are followed: who makes room for whom, who is let go, and that nobody looks costs nothing. */
import t from 'tap'
import type { QueueListener } from '../../src/events/queue-events.ts'
import { eventually } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { callsWithin, openEvents, untilBlocked } from '../helpers/streams.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

const nobody: QueueListener = { onEvent: () => {}, onGap: () => {} }
const add = (prefix: string, queue: string) =>
  client.xadd(`${prefix}:${queue}:events`, '*', 'event', 'added', 'jobId', '1')

/** A look each 5 s lets go what nobody has looked at. */
const SWEPT_MS = 12_000

t.test('a queue is followed from the place that is given, and only once', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const ids = [await add(prefix, 'q'), await add(prefix, 'q'), await add(prefix, 'q')]
  const heard: string[] = []
  events.onAnyEvent({ onEvent: ({ id }) => heard.push(id), onGap: () => {} })
  t.equal(events.feed('q'), undefined)
  const feed = events.follow('q', ids[0]!)
  t.ok(feed)
  t.equal(feed!.position, ids[0])
  t.equal(events.feed('q'), feed)
  t.equal(events.follow('q', '0-0'), feed)
  await eventually(() => heard.length >= 2)
  const [last] = [await add(prefix, 'q')]
  await eventually(() => heard.at(-1) === last)
  t.same(heard, [ids[1], ids[2], last])
  t.equal(feed!.position, last)
  t.match(events.stats(), { streams: 1, subscribers: 0, entries: 3 })
})

t.test('where as many queues are followed as may be, one more waits until one is idle', async (t) => {
  const { events, prefix, pass } = await openEvents(t, redis, 2)
  const heard: string[] = []
  events.onAnyEvent({ onEvent: ({ queue }) => heard.push(queue), onGap: () => {} })
  const a = events.follow('a', '0-0')!
  pass(1_000)
  const b = events.follow('b', '0-0')!
  pass(8_000)
  t.equal(events.follow('c', '0-0'), undefined, 'both were looked at in the last 10 s')
  t.equal(events.feed('c'), undefined)
  t.equal(events.stats().streams, 2)
  // Looked at again, `a` is no longer the one that was left longest.
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
  await eventually(() => heard.includes('a') && heard.includes('c'))
  t.same(heard.sort(), ['a', 'c'])
})

t.test('whoever serves an answer from a feed keeps it', async (t) => {
  const { events, pass } = await openEvents(t, redis, 1)
  const feed = events.follow('a', '0-0')!
  pass(15_000)
  feed.usedAtMs = Date.now() + 15_000
  t.equal(events.follow('b', '0-0'), undefined)
  pass(15_000)
  t.ok(events.follow('b', '0-0'))
  t.ok(feed.isClosed)
})

t.test('a queue with subscribers makes no room, and for subscribers there always is', async (t) => {
  const { events, pass } = await openEvents(t, redis, 1)
  const subscription = await events.subscribe('a', nobody)
  const second = await events.subscribe('b', nobody, 'k')
  t.equal(events.stats().streams, 2)
  pass(120_000)
  t.equal(events.follow('c', '0-0'), undefined)
  second.close()
  t.equal(events.follow('c', '0-0'), undefined, 'it was in use until just now')
  pass(11_000)
  t.equal(events.feed('a')!.isClosed, false)
  subscription.close()
})

t.test(
  'a queue that nobody looks at is let go, one with subscribers is not, and then reads stop',
  async (t) => {
    const { events, prefix, pass } = await openEvents(t, redis)
    const heard: string[] = []
    const listener: QueueListener = { onEvent: ({ id }) => heard.push(id), onGap: () => {} }
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
    await eventually(() => heard.length > 0)
    t.same(heard, [id])

    subscription.close()
    pass(61_000)
    await eventually(() => used.isClosed && subscribed.isClosed, SWEPT_MS)
    t.match(events.stats(), { status: 'idle', streams: 0, subscribers: 0 })
    await eventually(async () => (await client.info('clients')).includes('\nblocked_clients:0'), 1_500)
    await add(prefix, 'subscribed')
    t.same(await callsWithin(client, 3_000), {}, 'while nobody looks, Redis is asked for nothing')

    // The sweep has ended with the last feed; it has to begin anew with the next.
    const again = await events.subscribe('subscribed', listener)
    t.not(events.feed('subscribed'), subscribed)
    const next = await add(prefix, 'subscribed')
    await eventually(() => heard.at(-1) === next)
    t.same(heard, [id, next], 'what happened while nobody looked is not told late')
    again.close()
    pass(61_000)
    await eventually(() => events.feed('subscribed') === undefined, SWEPT_MS)
  },
)

t.test('a subscription that is closed leaves the queue followed for a minute', async (t) => {
  const { events, pass } = await openEvents(t, redis)
  const subscription = await events.subscribe('q', nobody)
  const feed = events.feed('q')!
  pass(300_000)
  subscription.close()
  pass(50_000)
  // A sweep has happened in this time: the unused neighbour is gone.
  const neighbour = events.follow('neighbour', '0-0')!
  neighbour.usedAtMs = 0
  await eventually(() => neighbour.isClosed, SWEPT_MS)
  t.equal(feed.isClosed, false)
  pass(11_000)
  await eventually(() => feed.isClosed, SWEPT_MS)
})

t.test('a queue that is kept makes no room, and those who listen hear of it', async (t) => {
  const { events, prefix, pass } = await openEvents(t, redis, 1)
  const heard: string[] = []
  events.onAnyEvent({ onEvent: ({ id }) => heard.push(id), onGap: () => {} })
  const [first, second] = await Promise.all([events.retain('q'), events.retain('q')])
  t.match(events.stats(), { streams: 1, subscribers: 2 })
  const id = await add(prefix, 'q')
  await eventually(() => heard.length > 0)
  t.same(heard, [id])
  first.close()
  first.close()
  t.equal(events.stats().subscribers, 1, 'one that is closed twice counts once')
  pass(120_000)
  t.equal(events.follow('other', '0-0'), undefined)
  second.close()
  pass(11_000)
  t.ok(events.follow('other', '0-0'))
  t.equal(events.feed('q'), undefined)
})

t.test('closing ends the read, and nothing is heard after it', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const heard: string[] = []
  const listener: QueueListener = { onEvent: ({ id }) => heard.push(id), onGap: () => {} }
  await events.subscribe('q', listener)
  await untilBlocked(client)
  const began = performance.now()
  await events.close()
  const elapsedMs = performance.now() - began
  t.ok(elapsedMs < 500, `${Math.round(elapsedMs)} ms`)
  await add(prefix, 'q')
  t.same(await callsWithin(client, 200), {})
  t.same(heard, [])
})
