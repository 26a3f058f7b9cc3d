/** Which listener receives which events, from which position on, and at what cost; with real queues and workers. */
import { Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import type { QueueEvent, QueueListener } from '../../src/events/queue-events.ts'
import { isAfter } from '../../src/redis/streams/stream-position.ts'
import { eventually } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { callsByCommand, eventsSocket, openEvents } from '../helpers/streams.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())
const connection = { path: redis.socket }

function openQueue(t: Test, prefix: string, name = 'q'): Queue {
  const queue = new Queue(name, { connection, prefix })
  t.teardown(() => queue.close())
  return queue
}

const streamOf = (prefix: string, name = 'q') => `${prefix}:${name}:events`

/** The entries of a stream after a position: their ids and jobs. */
async function inStream(stream: string, after = '0-0'): Promise<{ id: string; key: string | undefined }[]> {
  const entries = await client.xrange(stream, `(${after}`, '+')
  return entries.map(([id, fields]) => {
    const at = fields.findIndex((field, index) => index % 2 === 0 && field === 'jobId')
    return { id, key: at < 0 ? undefined : fields[at + 1] }
  })
}

const idsOf = (events: { id: string }[]) => events.map(({ id }) => id)

function recorder(): QueueListener & { events: QueueEvent[]; gaps: string[] } {
  const events: QueueEvent[] = []
  const gaps: string[] = []
  return { events, gaps, onEvent: (event) => events.push(event), onGap: (reason) => gaps.push(reason) }
}

/** Adds an entry as BullMQ writes it. */
const announce = (prefix: string, name: string, key: string) =>
  client.xadd(streamOf(prefix, name), '*', 'event', 'waiting', 'jobId', key)

t.test('an event reaches the listeners of its job, of its queue and of all queues', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const queue = openQueue(t, prefix)
  const order: string[] = []
  const all: QueueEvent[] = []
  const note = (listener: string, id: string) => order.push(`${id} ${listener}`)
  const [one, whole] = [recorder(), recorder()]
  // The subscribers come first, and receive events last nevertheless.
  await events.subscribe('q', { ...one, onEvent: (e) => [one.onEvent(e), note('key', e.id)] }, 'job-1')
  await events.subscribe('q', { ...whole, onEvent: (e) => [whole.onEvent(e), note('whole', e.id)] })
  events.onAnyEvent({ onEvent: (e) => [all.push(e), note('any', e.id)], onGap: () => {} })
  const other = recorder()
  await events.subscribe('another', other)

  for (const jobId of ['job-1', 'job-2', 'job-10']) {
    await queue.add('n', { jobId }, { jobId, attempts: 2, backoff: 1 })
  }
  const process = async (job: { id?: string; attemptsMade: number; updateProgress(n: number): unknown }) => {
    await job.updateProgress(50)
    if (job.id === 'job-2' && job.attemptsMade === 0) throw new Error('once')
    return `done ${job.id}`
  }
  const worker = new Worker('q', process, { connection, prefix })
  t.teardown(() => worker.close())
  await eventually(() => whole.events.filter(({ event }) => event === 'completed').length === 3)
  await worker.close()
  const written = await inStream(streamOf(prefix))
  await eventually(() => whole.events.at(-1)?.id === written.at(-1)!.id)

  t.same(idsOf(whole.events), idsOf(written))
  t.same(idsOf(all), idsOf(written))
  const ofJob1 = written.filter(({ key }) => key === 'job-1')
  t.same(idsOf(one.events), idsOf(ofJob1))
  t.ok(ofJob1.length >= 4 && ofJob1.length < written.length)
  t.same(
    [...new Set(one.events.map(({ event }) => event))],
    ['added', 'waiting', 'active', 'progress', 'completed'],
  )
  t.match(one.events.at(-1), {
    queue: 'q',
    event: 'completed',
    key: 'job-1',
    fields: { returnvalue: '"done job-1"', prev: 'active' },
  })
  t.same(other.events, [])
  const lastOf = order.filter((line) => line.startsWith(ofJob1.at(-1)!.id)).map((line) => line.split(' ')[1])
  t.same(lastOf, ['any', 'whole', 'key'])
})

t.test('every event after the position of a subscription is delivered, whenever it was opened', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const adders = ['q', 'r'].map((name) => openQueue(t, prefix, name))
  const subscribed: { name: string; position: string; received: QueueEvent[] }[] = []
  let adding = true
  const added = adders.map(async (queue) => {
    for (let i = 0; i < 40; i++)
      await queue.addBulk(Array.from({ length: 5 }, () => ({ name: 'n', data: {} })))
  })
  const finished = Promise.all(added).finally(() => {
    adding = false
  })
  const subscribe = async (name: string) => {
    const listener = recorder()
    const { position } = await events.subscribe(name, listener)
    subscribed.push({ name, position, received: listener.events })
  }
  while (adding && subscribed.length < 500) {
    await Promise.all([subscribe('q'), subscribe('r'), subscribe('q')])
    await new Promise((resolve) => setTimeout(resolve, 3))
  }
  await finished
  for (const name of ['q', 'r']) {
    const written = idsOf(await inStream(streamOf(prefix, name)))
    const own = subscribed.filter((subscription) => subscription.name === name)
    const behind = own.filter(({ position }) => position !== written.at(-1))
    await eventually(() => behind.every(({ received }) => received.at(-1)?.id === written.at(-1)))
    const wrong = own.filter(({ position, received }) => {
      const expected = written.filter((id) => isAfter(id, position))
      return idsOf(received.filter(({ id }) => isAfter(id, position))).join() !== expected.join()
    })
    t.same(
      wrong.map(({ position }) => position),
      [],
      `${own.length} subscriptions of ${name}`,
    )
    t.ok(new Set(own.map(({ position }) => position)).size > 3, 'they were opened at several positions')
  }
})

t.test('a thousand concurrent subscriptions to a queue that is not followed send one command', async (t) => {
  const { events, gateway, prefix } = await openEvents(t, redis)
  const listeners = Array.from({ length: 1_000 }, recorder)
  const before = (await callsByCommand(client))['client|unblock'] ?? 0
  const subscriptions = await Promise.all(
    listeners.map((listener, i) => events.subscribe('q', listener, `k${i % 500}`)),
  )
  t.equal(gateway.commandsSent()['probeQueues'], 1)
  t.ok(((await callsByCommand(client))['client|unblock'] ?? 0) - before <= 1)
  t.match(events.stats(), { subscribers: 1_000, streams: 1 })
  await announce(prefix, 'q', 'k7')
  await announce(prefix, 'q', 'k8')
  await eventually(() => listeners.reduce((sum, { events: received }) => sum + received.length, 0) >= 4)
  const receivers = listeners.flatMap(({ events: received }, i) => (received.length > 0 ? [i] : []))
  t.same(receivers, [7, 8, 507, 508])
  for (const subscription of subscriptions.slice(0, 600)) subscription.close()
  t.equal(events.stats().subscribers, 400)
  await events.subscribe('q', recorder())
  t.equal(gateway.commandsSent()['probeQueues'], 1, 'the position of a followed queue is known')
})

t.test('a closed subscription receives nothing more, and the others do', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const [left, kept, whole] = [recorder(), recorder(), recorder()]
  const subscription = await events.subscribe('q', left, 'k')
  await events.subscribe('q', kept, 'k')
  await events.subscribe('q', whole)
  t.equal(events.stats().subscribers, 3)
  await announce(prefix, 'q', 'k')
  await eventually(() => whole.events.length === 1)
  subscription.close()
  subscription.close()
  t.equal(events.stats().subscribers, 2)
  await announce(prefix, 'q', 'k')
  await eventually(() => whole.events.length === 2)
  t.equal(left.events.length, 1)
  t.equal(kept.events.length, 2)
  const again = await events.subscribe('q', left, 'k')
  subscription.close()
  await announce(prefix, 'q', 'k')
  await eventually(() => whole.events.length === 3)
  t.equal(left.events.length, 2, 'closing it again does not end a later subscription')
  t.equal(again.position, whole.events[1]!.id)
})

t.test('an event without a job reaches only the listeners of the queue', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const [one, whole] = [recorder(), recorder()]
  await events.subscribe('q', one, 'k')
  await events.subscribe('q', whole)
  const queue = openQueue(t, prefix)
  await queue.pause()
  await queue.resume()
  await eventually(() => whole.events.length >= 2)
  t.match(whole.events, [
    { event: 'paused', key: undefined },
    { event: 'resumed', key: undefined },
  ])
  t.same(one.events, [])
})

t.test('a gap reaches every listener, and the feed gets another epoch', async (t) => {
  const { events, prefix } = await openEvents(t, redis)
  const [one, whole, other] = [recorder(), recorder(), recorder()]
  const all: string[] = []
  events.onAnyEvent({ onEvent: () => {}, onGap: (queue, reason) => all.push(`${queue} ${reason}`) })
  await events.subscribe('q', one, 'k')
  await events.subscribe('q', whole)
  await events.subscribe('other', other)
  await announce(prefix, 'q', 'k')
  await eventually(() => one.events.length === 1)
  const feed = events.feed('q')!
  const before = feed.epoch
  await client.del(streamOf(prefix))
  await eventually(() => one.gaps.length > 0)
  t.same(one.gaps, ['vanished'])
  t.same(whole.gaps, ['vanished'])
  t.same(all, ['q vanished'])
  t.same(other.gaps, [])
  t.equal(feed.epoch, before + 1)
  t.equal(events.feed('other')!.epoch, 0)
  t.ok(feed.isLive)

  await client.call('CLIENT', 'KILL', 'ID', await eventsSocket(client))
  await eventually(() => other.gaps.length > 0)
  t.same(
    [one.gaps, whole.gaps, other.gaps],
    [['vanished', 'reconnected'], ['vanished', 'reconnected'], ['reconnected']],
  )
  t.same(all.slice(1).sort(), ['other reconnected', 'q reconnected'])
  t.equal(feed.epoch, before + 2)
  await eventually(() => feed.isLive)
})

t.test(
  'cleaned jobs, of which BullMQ announces only the number, are a gap for listeners of a job',
  async (t) => {
    const { events, prefix } = await openEvents(t, redis)
    const [one, whole] = [recorder(), recorder()]
    const all: string[] = []
    events.onAnyEvent({ onEvent: () => {}, onGap: (queue, reason) => all.push(`${queue} ${reason}`) })
    await events.subscribe('q', one, 'k')
    await events.subscribe('q', whole)
    const queue = openQueue(t, prefix)
    await queue.clean(0, 100, 'wait')
    await eventually(() => whole.events.some(({ event }) => event === 'cleaned'))
    t.same(all, [], 'no job was removed')
    await queue.add('n', {}, { jobId: 'k' })
    await queue.clean(0, 100, 'wait')
    await eventually(() => one.gaps.length > 0)
    t.same([one.gaps, whole.gaps, all], [['cleaned'], [], ['q cleaned']])
    t.equal(events.feed('q')!.epoch, 1)
  },
)

t.test('a subscription rejects while Redis is away, and works when Redis is back', async (t) => {
  const { rename } = await import('node:fs/promises')
  const own = await startRedis()
  t.teardown(() => own.stop())
  const { events, connections } = await openEvents(t, own)
  await rename(own.socket, `${own.socket}.away`)
  await own.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await eventually(() => connections.all.every(({ ready }) => !ready))
  await t.rejects(events.subscribe('q', recorder()), { code: 'REDIS_UNAVAILABLE' })
  t.match(events.stats(), { subscribers: 0, streams: 0, status: 'idle' })
  await rename(`${own.socket}.away`, own.socket)
  await eventually(() => connections.all.every(({ ready }) => ready))
  const listener = recorder()
  await events.subscribe('q', listener)
  await eventually(() => events.feed('q')!.isLive)
})
