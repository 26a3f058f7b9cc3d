/**
 * The cache alone, with a reader, a feed and a clock that the test controls. coherence.test.ts covers it with real Redis,
 * real workers and several replicas.
 */
import t from 'tap'
import { SluiceError } from '../../../src/errors.ts'
import type { Feed } from '../../../src/events/feed-registry.ts'
import type { QueueEvent, QueueEvents } from '../../../src/events/queue-events.ts'
import type { Reading } from '../../../src/jobs/status/job-reader.ts'
import { bodyOf, type JobResource, resourceOfNewJob } from '../../../src/jobs/status/job-resource.ts'
import { createStatusCache } from '../../../src/jobs/status/status-cache.ts'
import { testConfig } from '../../helpers/app.ts'

const plain = { data: false, logs: false }
const withData = { data: true, logs: false }
const ref = { queue: 'q', key: 'a' }

function job(state: JobResource['state'] = 'waiting'): JobResource {
  return resourceOfNewJob(ref, { name: 'n', state, timestamp: 1_790_000_000_000 }, {})
}

function setUp(settings: Record<string, string> = {}, { follows = true } = {}) {
  let nowMs = 1_000_000
  const reads: { resolve(reading: Reading): void; reject(error: Error): void }[] = []
  const small: { resolve(reading: Reading | undefined): void; reject(error: Error): void }[] = []
  const many: { resolve(readings: Reading[]): void; reject(error: Error): void }[] = []
  const reader = {
    read: () => new Promise<Reading>((resolve, reject) => reads.push({ resolve, reject })),
    readSmall: () => new Promise<Reading | undefined>((resolve, reject) => small.push({ resolve, reject })),
    readMany: () => new Promise<Reading[]>((resolve, reject) => many.push({ resolve, reject })),
  }
  const feed = { queue: 'q', isLive: true, epoch: 0, isClosed: false, position: '0-0', usedAtMs: 0 }
  let followed: Feed | undefined
  let listener!: Parameters<QueueEvents['onAnyEvent']>[0]
  const events: Pick<QueueEvents, 'feed' | 'follow' | 'onAnyEvent'> = {
    feed: () => followed,
    follow: () => {
      if (follows) followed = feed
      return followed
    },
    onAnyEvent: (one) => {
      listener = one
    },
  }
  const cache = createStatusCache(testConfig(settings), reader, events, () => nowMs)
  t.teardown(() => cache.close())
  const fill = (found: JobResource | undefined, position = '5-0', include = plain) => {
    const fetched = cache.fetch(ref, include)
    reads.at(-1)!.resolve({ job: found, position })
    return fetched
  }
  /** `key` null: the event concerns no job. */
  const happens = (id: string, event = 'active', key: string | null = 'a') =>
    listener.onEvent({ queue: 'q', id, event, key: key ?? undefined, fields: {} } satisfies QueueEvent)
  return {
    cache,
    reads,
    small,
    many,
    feed,
    fill,
    happens,
    peek: (include = plain) => cache.peek('q:a', include, nowMs),
    pass: (ms: number) => {
      nowMs += ms
    },
  }
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

t.test('requests for one id that miss together share one read', async (t) => {
  const { cache, reads } = setUp()
  const requests = Array.from({ length: 1_000 }, () => cache.fetch(ref, plain))
  t.equal(reads.length, 1)
  reads[0]!.resolve({ job: job(), position: '5-0' })
  const bodies = new Set((await Promise.all(requests)).map(({ job }) => job?.body))
  t.equal(bodies.size, 1)
})

t.test('without events each kind of entry has its own TTL: unfinished, finished and missing', async (t) => {
  for (const [found, ttlMs] of [
    [job('active'), 1_000],
    [job('completed'), 60_000],
    [job('failed'), 60_000],
    [undefined, 300],
  ] as const) {
    const settings = { CACHE_TTL_SHORT: '1000', CACHE_TTL_LONG: '60000', CACHE_TTL_MISSING: '300' }
    const { fill, peek, pass } = setUp(settings)
    await fill(found)
    pass(ttlMs - 1)
    t.match(peek(), { source: 'hit', ttlMs: 1, degraded: false }, `${found?.state} after ${ttlMs - 1} ms`)
    pass(1)
    t.equal(peek(), undefined, `${found?.state} after ${ttlMs} ms`)
  }
})

t.test('an event invalidates what was read before it, and nothing that was read after', async (t) => {
  const { fill, peek, happens } = setUp()
  await fill(job(), '5-0')
  happens('5-0')
  happens('4-9')
  t.ok(peek(), 'the entry reflects these events already')
  happens('6-0', 'active', 'b')
  happens('6-1', 'drained', null)
  t.ok(peek(), 'these events concern another job, or none')
  happens('6-2')
  t.equal(peek(), undefined)
})

t.test('an entry that was used is read again at once, an unused one is only removed', async (t) => {
  const { fill, peek, happens, reads } = setUp()
  await fill(job(), '5-0')
  happens('6-0')
  t.equal(reads.length, 1)
  await fill(job('active'), '6-0')
  peek()
  happens('7-0', 'completed')
  t.equal(reads.length, 3)
  reads[2]!.resolve({ job: job('completed'), position: '7-0' })
  await settled()
  t.match(peek(), { source: 'hit', job: { finished: true } })
})

t.test('an event invalidates the variant with data too, independently', async (t) => {
  const { fill, peek, happens, reads } = setUp()
  await fill({ ...job(), data: { json: '1' } }, '5-0', withData)
  peek(withData)
  happens('6-0')
  t.equal(peek(withData), undefined)
  t.equal(reads.length, 2)
})

t.test('a read that an event overtakes serves the earlier requests, and is not kept', async (t) => {
  const { cache, reads, peek, happens } = setUp()
  const before = cache.fetch(ref, plain)
  reads[0]!.resolve({ job: job(), position: '5-0' })
  await before
  const early = cache.fetch(ref, plain, { bypass: true })
  happens('6-0')
  const late = cache.fetch(ref, plain)
  t.equal(reads.length, 3, 'a request after the event does not share the read from before it')
  reads[1]!.resolve({ job: job(), position: '5-0' })
  await early
  t.equal(peek(), undefined)
  reads[2]!.resolve({ job: job('active'), position: '6-0' })
  await late
  t.match(peek()?.job?.body, /"active"/)
})

t.test('a read that an event overtakes is kept if it was made after the event', async (t) => {
  const { cache, reads, peek, happens, fill } = setUp()
  await fill(job(), '5-0')
  const requests = cache.fetch(ref, plain, { bypass: true })
  happens('6-0')
  reads[1]!.resolve({ job: job('active'), position: '6-0' })
  await requests
  t.match(peek()?.job?.body, /"active"/)
})

t.test('a read that two events overtake is kept only if it was made after both', async (t) => {
  for (const [position, isKept] of [
    ['5-9', false],
    ['6-5', false],
    ['7-0', true],
  ] as const) {
    const { cache, reads, peek, happens, fill } = setUp()
    await fill(job(), '5-0')
    const requests = cache.fetch(ref, plain, { bypass: true })
    happens('6-0')
    happens('7-0', 'completed')
    reads[1]!.resolve({ job: job('active'), position })
    await requests
    t.equal(peek() !== undefined, isKept, `read at ${position}`)
  }
})

t.test(
  'an event or a write overtakes every read of the job that is under way, not only the newest',
  async (t) => {
    const { cache, reads, peek, happens, fill } = setUp()
    await fill(job(), '5-0')
    const requests = [1, 2, 3].map(() => cache.fetch(ref, plain, { bypass: true }))
    happens('6-0')
    reads[3]!.resolve({ job: job('active'), position: '6-0' })
    reads[1]!.resolve({ job: job(), position: '5-0' })
    reads[2]!.resolve({ job: job(), position: '5-0' })
    await Promise.all(requests)
    t.match(peek()?.job?.body, /"active"/)
    const before = [4, 5].map(() => cache.fetch(ref, plain, { bypass: true }))
    cache.forget('q', 'a')
    reads[4]!.resolve({ job: job(), position: '6-0' })
    reads[5]!.resolve({ job: job(), position: '6-0' })
    await Promise.all(before)
    t.equal(peek(), undefined, 'the same holds for a write')
  },
)

t.test(
  'the first read of a queue is not kept if the queue was followed from a later position meanwhile',
  async (t) => {
    const { cache, reads, peek, feed } = setUp()
    const first = cache.fetch(ref, plain)
    feed.position = '6-0'
    reads[0]!.resolve({ job: job(), position: '5-0' })
    await first
    t.equal(peek(), undefined, 'no event of the time in between was received')
  },
)

t.test('an older read that resolves later does not replace a newer one', async (t) => {
  const { cache, reads, peek, happens, fill } = setUp()
  await fill(job(), '5-0')
  const older = cache.fetch(ref, plain, { bypass: true })
  happens('6-0')
  const newer = cache.fetch(ref, plain)
  reads[2]!.resolve({ job: job('completed'), position: '6-0' })
  await newer
  reads[1]!.resolve({ job: job('active'), position: '5-5' })
  await older
  t.match(peek()?.job?.body, /"completed"/)
})

t.test('after a gap no earlier entry is served, and no earlier read is kept', async (t) => {
  const { cache, fill, peek, feed, reads } = setUp()
  await fill(job())
  const underWay = cache.fetch(ref, plain, { bypass: true })
  feed.epoch++
  t.equal(peek(), undefined)
  reads[1]!.resolve({ job: job(), position: '5-0' })
  await underWay
  t.equal(peek(), undefined)
  await fill(job())
  t.ok(peek())
})

t.test('while events do not arrive an entry is served for a second, and marked as degraded', async (t) => {
  const { fill, peek, feed, pass } = setUp()
  await fill(job('completed'))
  feed.isLive = false
  pass(999)
  t.match(peek(), { source: 'hit', degraded: true, ttlMs: 1 })
  pass(1)
  t.equal(peek(), undefined)
  feed.isLive = true
  t.match(peek(), { degraded: false }, 'events arrive again without a gap: the entry is valid')
})

t.test('an entry of a closed feed is not served, and without a feed it is served for a second', async (t) => {
  const closed = setUp()
  await closed.fill(job())
  closed.feed.isClosed = true
  t.equal(closed.peek(), undefined, 'events since then are not received')
  const unfollowed = setUp({}, { follows: false })
  t.match(await unfollowed.fill(job()), { degraded: true })
  unfollowed.pass(999)
  t.ok(unfollowed.peek())
  unfollowed.pass(1)
  t.equal(unfollowed.peek(), undefined)
})

t.test('a name that never was a queue is not followed, and its missing job is kept for 100 ms', async (t) => {
  const { fill, peek, pass } = setUp()
  await fill(undefined, '0-0')
  pass(99)
  t.match(peek(), { job: undefined })
  pass(1)
  t.equal(peek(), undefined)
})

t.test(
  'a read that was under way when this process wrote the job serves its request and is not kept',
  async (t) => {
    const { cache, reads, peek } = setUp()
    const before = cache.fetch(ref, plain)
    cache.forget('q', 'a')
    const after = cache.fetch(ref, plain)
    t.equal(reads.length, 2, 'a request after the write does not share the read from before it')
    reads[0]!.resolve({ job: undefined, position: '5-0' })
    t.equal((await before).job, undefined)
    t.equal(peek(), undefined, 'the old result was not kept')
    reads[1]!.resolve({ job: job(), position: '5-0' })
    await after
    t.equal(peek()?.job?.body, bodyOf(job()))
  },
)

t.test('forget removes both variants of the job, and no other job', async (t) => {
  const { cache, fill, peek } = setUp()
  await fill(job())
  await fill({ ...job(), data: { json: '1' } }, '5-0', withData)
  cache.forget('q', 'b')
  t.ok(peek())
  cache.forget('q', 'a')
  t.equal(peek(), undefined)
  t.equal(peek(withData), undefined)
})

t.test('while Redis fails the last known job is served as stale, for a limited time', async (t) => {
  const { cache, reads, fill, pass } = setUp({ CACHE_TTL_SHORT: '100', CACHE_STALE_KEEP: '5000' })
  await fill(job())
  pass(1_000)
  const away = (one = ref) => {
    const fetched = cache.fetch(one, plain)
    reads.at(-1)!.reject(new SluiceError('REDIS_UNAVAILABLE'))
    return fetched
  }
  t.match(await away(), { source: 'stale', ttlMs: -900, job: { body: bodyOf(job()) } })
  pass(5_000)
  await t.rejects(away(), { code: 'REDIS_UNAVAILABLE' })
  await t.rejects(
    away({ queue: 'q', key: 'b' }),
    { code: 'REDIS_UNAVAILABLE' },
    'a job that was never read has no stale entry',
  )
})

t.test('a job that is known to have changed or gone is not served as stale', async (t) => {
  for (const change of ['gone', 'changed', 'gap'] as const) {
    const { cache, reads, fill, pass, happens, feed } = setUp({
      CACHE_TTL_MISSING: '100',
      CACHE_TTL_SHORT: '100',
    })
    await fill(job())
    if (change === 'gone') await fill(undefined)
    if (change === 'changed') happens('6-0')
    if (change === 'gap') feed.epoch++
    pass(200)
    const fetched = cache.fetch(ref, plain)
    reads.at(-1)!.reject(new SluiceError('REDIS_UNAVAILABLE'))
    await t.rejects(fetched, { code: 'REDIS_UNAVAILABLE' }, change)
  }
})

t.test('a bypass does not share a read that began before it', async (t) => {
  const { cache, reads } = setUp()
  const earlier = cache.fetch(ref, plain)
  const fresh = cache.fetch(ref, plain, { bypass: true })
  t.equal(reads.length, 2)
  for (const read of reads) read.resolve({ job: job(), position: '5-0' })
  t.equal((await earlier).source, 'miss')
  t.equal((await fresh).source, 'bypass')
})

t.test('logs are read each time, since no event announces a line', async (t) => {
  const { cache, reads, peek } = setUp()
  const logs = { data: false, logs: true }
  const requests = [cache.fetch(ref, logs), cache.fetch(ref, logs)]
  t.equal(reads.length, 2)
  for (const read of reads) read.resolve({ job: job(), position: '5-0' })
  await Promise.all(requests)
  t.equal(peek(logs), undefined)
})

t.test('with every TTL at 0 nothing is kept and no read is shared', async (t) => {
  const { cache, reads, fill, peek } = setUp({
    CACHE_TTL_SHORT: '0',
    CACHE_TTL_LONG: '0',
    CACHE_TTL_MISSING: '0',
  })
  await fill(job('completed'))
  t.equal(peek(), undefined)
  void cache.fetch(ref, plain)
  void cache.fetch(ref, plain)
  t.equal(reads.length, 3)
  t.match(cache.stats(), { enabled: false, totalEntries: 0 })
})

t.test('memory is bounded by bytes, the oldest entry goes first, and the counts are right', async (t) => {
  const { cache, reads, pass } = setUp({ CACHE_MAX_BYTES: '65536', CACHE_TTL_SHORT: '1000' })
  for (let i = 0; i < 200; i++) {
    const fetched = cache.fetch({ queue: 'q', key: `k${i}` }, plain)
    reads.at(-1)!.resolve({ job: job(), position: '5-0' })
    await fetched
  }
  const { bytes, maxBytes, totalEntries, validEntries } = cache.stats()
  t.ok(bytes <= maxBytes)
  t.ok(totalEntries > 20 && totalEntries < 200, `${totalEntries} entries`)
  t.equal(validEntries, totalEntries)
  t.equal(cache.peek('q:k0', plain, 0), undefined, 'the first entry is gone')
  t.ok(cache.peek('q:k199', plain, 0), 'the last entry is there')
  t.match(cache.stats(), { hits: 1, misses: 1, hitRatio: 0.5 })
  pass(1_000)
  t.match(cache.stats(), { validEntries: 0, expiredEntries: totalEntries })
})

t.test('the sweep removes an entry once it may not even be served as stale, and no earlier', async (t) => {
  const settings = { CACHE_TTL_SHORT: '1000', CACHE_STALE_KEEP: '2000', CACHE_SWEEP_INTERVAL: '1000' }
  const { cache, fill, pass } = setUp(settings)
  const sweep = () => new Promise((resolve) => setTimeout(resolve, 1_100))
  await fill(job())
  pass(2_999)
  await sweep()
  t.equal(cache.stats().totalEntries, 1, 'expired, and kept for while Redis is unavailable')
  pass(2)
  await sweep()
  t.equal(cache.stats().totalEntries, 0)
})
