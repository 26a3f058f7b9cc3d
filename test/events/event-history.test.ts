/** The events after a given one, from streams as BullMQ and others leave them, on a real gateway. */
import { Queue } from 'bullmq'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import type { FollowedEvent } from '../../src/events/event-frames.ts'
import { createEventHistory } from '../../src/events/event-history.ts'
import type { QueueEvent } from '../../src/events/queue-events.ts'
import { computeConnectionBudget } from '../../src/redis/connection/connection-budget.ts'
import { createRedisConnections } from '../../src/redis/connection/connections.ts'
import { createByteBudget } from '../../src/redis/gateway/byte-budget.ts'
import { createRedisGateway } from '../../src/redis/gateway/redis-gateway.ts'
import { createSemaphore } from '../../src/redis/gateway/semaphore.ts'
import { createKeyspace } from '../../src/redis/keyspace.ts'
import { eventually, testConfig } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { addEntries } from '../helpers/streams.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

const PAGE = 500
/** After every position that a stream has here. */
const END = '999999999999999-0'

async function setUp(t: Test, maxEventBytes = 8_388_608) {
  const config = testConfig()
  const prefix = config.QUEUE_PREFIX
  const connections = createRedisConnections(
    config,
    redis,
    computeConnectionBudget(config, 1),
    pino({ level: 'silent' }),
  )
  const gateway = createRedisGateway(config, connections, createSemaphore(100, 100))
  t.teardown(async () => {
    await connections.close()
    gateway.close()
  })
  await eventually(() => connections.all.every(({ ready }) => ready))
  const byteBudget = createByteBudget(maxEventBytes, 100)
  const keyspace = createKeyspace(prefix)
  const history = createEventHistory({ keyspace, gateway, byteBudget, maxEventBytes })
  const stream = `${prefix}:q:events`

  /** The ids of each page; `between` runs before each page is read. */
  async function pagesSince(after: string, upTo = END, between: () => Promise<unknown> = async () => {}) {
    const pages: (string[] | 'gap')[] = []
    const found = await history.since('q', after, upTo)
    if (!found) return undefined
    await between()
    for await (const page of found) {
      pages.push(page === 'gap' ? page : page.map(({ id }) => id))
      await between()
    }
    return pages
  }
  return { prefix, stream, history, pagesSince, reads: () => gateway.commandsSent()['eventHistory'] ?? 0 }
}

t.test('yields the events after an event, without the event itself', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  const ids = await addEntries(client, stream, 10)
  t.strictSame(await pagesSince(ids[0]!), [ids.slice(1)])
  t.strictSame(await pagesSince(ids[6]!), [ids.slice(7)])
  t.strictSame(await pagesSince(ids[8]!), [ids.slice(9)])
  t.strictSame(await pagesSince(ids[9]!), [], 'no event was missed')
})

t.test('yields the events of a real queue with every field, and of that queue only', async (t) => {
  const { prefix, stream, history } = await setUp(t)
  const opts = { connection: client, prefix }
  const [queue, other] = [new Queue('q', opts), new Queue('other', opts)]
  await queue.add('first', {}, { jobId: 'a' })
  const [[after]] = (await client.xrevrange(stream, '+', '-', 'COUNT', 1)) as [[string, string[]]]
  await other.add('elsewhere', {}, { jobId: 'z' })
  await queue.add('second', {}, { jobId: 'b', delay: 60_000 })
  const events: QueueEvent[] = []
  for await (const page of (await history.since('q', after, END))!) events.push(...(page as QueueEvent[]))
  t.strictSame(
    events.map(({ queue, event, key }) => [queue, event, key]),
    [
      ['q', 'added', 'b'],
      ['q', 'delayed', 'b'],
    ],
  )
  t.equal(events[0]!.fields['name'], 'second')
  t.match(events[1]!.fields['delay'], /^\d{13}$/)
})

t.test('yields many events page by page, each once and in order', async (t) => {
  const { stream, pagesSince, reads } = await setUp(t)
  const ids = await addEntries(client, stream, 1_200)
  const pages = (await pagesSince(ids[0]!)) as string[][]
  t.strictSame(pages.flat(), ids.slice(1))
  t.ok(pages.every(({ length }) => length > 0 && length <= PAGE))
  t.equal(reads(), 3)
})

t.test('no event is lost or repeated, wherever a page ends', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  const ids = await addEntries(client, stream, 2 * PAGE + 1)
  for (const count of [
    PAGE - 2,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    2 * PAGE - 3,
    2 * PAGE - 2,
    2 * PAGE - 1,
    2 * PAGE,
  ]) {
    const pages = (await pagesSince(ids.at(-1 - count)!)) as string[][]
    t.strictSame(pages.flat(), ids.slice(-count), `${count} events`)
    t.ok(pages.every(({ length }) => length > 0))
  }
})

t.test('nothing after the given end is yielded or read', async (t) => {
  const { stream, pagesSince, reads } = await setUp(t)
  const ids = await addEntries(client, stream, 1_200)
  for (const [from, to] of [
    [0, 1],
    [0, 300],
    [0, 498],
    [0, 499],
    [0, 500],
    [0, 998],
    [0, 999],
    [10, 1_198],
  ] as const) {
    const before = reads()
    const pages = (await pagesSince(ids[from]!, ids[to]!)) as string[][]
    t.strictSame(pages.flat(), ids.slice(from + 1, to + 1), `${from} to ${to}`)
    t.ok(pages.every(({ length }) => length > 0))
    t.equal(reads() - before, Math.ceil((to - from) / (PAGE - 1)), `${from} to ${to}`)
  }
})

t.test('the end may be at or before the event, and need not be an entry', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  for (const id of ['5-0', '5-2', '9-0', '10-0']) await client.xadd(stream, id, 'event', 'added')
  t.strictSame(await pagesSince('5-2', '5-2'), [])
  t.strictSame(await pagesSince('5-2', '5-0'), [])
  t.strictSame(await pagesSince('5-2', '0-0'), [])
  t.strictSame(await pagesSince('5-0', '5-1'), [])
  t.strictSame(await pagesSince('5-0', '9-7'), [['5-2', '9-0']], 'compared as numbers, not as text')
})

t.test('events that are added while pages are read are yielded up to the end', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  const ids = await addEntries(client, stream, 600)
  const toTheEnd = await pagesSince(ids[0]!, ids.at(-1)!, () => addEntries(client, stream, 50))
  t.strictSame(toTheEnd!.flat(), ids.slice(1))
})

t.test('an event that is not in the stream yields nothing: events may be missing', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  t.equal(await pagesSince('5-0'), undefined, 'no stream')
  for (const id of ['5-1', '5-2', '9-0']) await client.xadd(stream, id, 'event', 'added')
  for (const id of ['0-0', '4-9', '5-0', '5-3', '9-1', '10-0', '999999999999999-0']) {
    t.equal(await pagesSince(id), undefined, id)
  }
  t.strictSame(await pagesSince('5-1'), [['5-2', '9-0']])
  await client.xtrim(stream, 'MAXLEN', '=', 2)
  t.equal(await pagesSince('5-1'), undefined, 'trimmed')
  await client.xdel(stream, '5-2')
  t.equal(await pagesSince('5-2'), undefined, 'deleted')
})

t.test('a text that is not an entry id sends no command', async (t) => {
  const { stream, pagesSince, reads } = await setUp(t)
  await client.xadd(stream, '5-0', 'event', 'added')
  const junk = [
    '',
    '5',
    '5-',
    '-0',
    '-',
    '+',
    '$',
    '*',
    '(5-0',
    '5-0-0',
    '5-*',
    ' 5-0',
    '5-0\n',
    '5-0\r\nx',
    'a-b',
  ]
  for (const id of [
    ...junk,
    '-5-0',
    '5.0-0',
    '٥-0',
    '0x5-0',
    '5-0x',
    `${'5'.repeat(16)}-0`,
    `5-${'0'.repeat(16)}`,
  ]) {
    t.equal(await pagesSince(id), undefined, JSON.stringify(id))
  }
  t.equal(reads(), 0)
  t.equal(await pagesSince('005-00'), undefined, 'another spelling of an id was never sent to a client')
  t.strictSame(await pagesSince('5-0'), [])
})

t.test('a stream that is trimmed while it is read yields a gap after the last page', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  const ids = await addEntries(client, stream, 1_200)
  let pages = 0
  const trimmed = await pagesSince(ids[0]!, END, async () => {
    if (pages++ === 1) await client.xtrim(stream, 'MAXLEN', '=', 100)
  })
  t.strictSame(trimmed, [ids.slice(1, PAGE), 'gap'], 'and nothing after the gap')
})

t.test('a stream that is emptied or deleted while it is read yields a gap', async (t) => {
  for (const empty of [
    (stream: string) => client.xtrim(stream, 'MAXLEN', '=', 0),
    (stream: string) => client.del(stream),
  ]) {
    const { stream, pagesSince } = await setUp(t)
    const ids = await addEntries(client, stream, 1_200)
    t.strictSame(await pagesSince(ids[0]!, END, () => empty(stream)), [ids.slice(1, PAGE), 'gap'])
  }
})

t.test('trimming entries that were read already is no gap', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  const ids = await addEntries(client, stream, 1_200)
  let pages = 0
  const all = await pagesSince(ids[0]!, END, async () => {
    // The last entry that was read stays, since reading goes on from it.
    if (pages++ > 0) await client.xtrim(stream, 'MINID', '=', ids[pages === 2 ? PAGE - 1 : 2 * PAGE - 2]!)
  })
  t.strictSame(all!.flat(), ids.slice(1))
  const few = await pagesSince(ids[1_000]!, END, () => client.del(stream))
  t.strictSame(few, [ids.slice(1_001)], 'everything was read at once')
})

t.test('a key that is not a stream is reported as a damaged queue', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  await client.set(stream, 'x')
  await t.rejects(pagesSince('5-0'), { code: 'QUEUE_DAMAGED' })
})

t.test('a page ends early when its events are large, and no event is lost or repeated', async (t) => {
  const { stream, pagesSince } = await setUp(t)
  const large = 'x'.repeat(100_000)
  const ids: string[] = []
  for (let i = 0; i < 40; i++) {
    const value = i % 4 === 0 ? '1' : large
    ids.push((await client.xadd(stream, '*', 'event', 'completed', 'jobId', `${i}`, 'returnvalue', value))!)
  }
  const pages = (await pagesSince(ids[0]!)) as string[][]
  t.strictSame(pages.flat(), ids.slice(1))
  t.ok(pages.length >= 10, `${pages.length} pages`)
  t.ok(
    pages.every(({ length }) => length >= 1 && length <= 4),
    'at most 262,144 bytes a page',
  )
})

t.test('an event larger than a page is a page, and a value that is too long is not read', async (t) => {
  const { stream, history } = await setUp(t, 400_000)
  const first = (await client.xadd(stream, '*', 'event', 'added'))!
  for (const bytes of [350_000, 500_000, 10])
    await client.xadd(
      stream,
      '*',
      'event',
      'completed',
      'jobId',
      'a',
      'returnvalue',
      'x'.repeat(bytes),
      'prev',
      'active',
    )
  const before = Number(/total_net_output_bytes:(\d+)/.exec(await client.info('stats'))?.[1])
  const events: FollowedEvent[] = []
  for await (const page of (await history.since('q', first, END))!) if (page !== 'gap') events.push(...page)
  const sent = Number(/total_net_output_bytes:(\d+)/.exec(await client.info('stats'))?.[1]) - before
  t.same(
    events.map(({ fields }) => fields['returnvalue']?.length),
    [350_000, undefined, 10],
  )
  t.strictSame(events[1]!.tooLong, ['returnvalue'])
  t.match(events[1], { event: 'completed', key: 'a', fields: { prev: 'active' } })
  t.notOk('tooLong' in events[0]!)
  t.ok(sent < 400_000, `Redis sent ${sent} bytes: no event twice`)
})
