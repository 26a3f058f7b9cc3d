/** The cache by itself: a reader that answers when it is told to, and a clock that goes when it is moved. */
import t from 'tap'
import { SluiceError } from '../../src/errors.ts'
import { type JobResource, resourceOfNewJob } from '../../src/jobs/job-resource.ts'
import { createStatusCache } from '../../src/jobs/status-cache.ts'
import { testConfig } from '../helpers/app.ts'

const plain = { data: false, logs: false }
const ref = { queue: 'q', key: 'a' }

function job(state: JobResource['state'] = 'waiting'): JobResource {
  return resourceOfNewJob(ref, { name: 'n', state, timestamp: 1_790_000_000_000 }, {})
}

function setUp(settings: Record<string, string> = {}) {
  let nowMs = 1_000_000
  const reads: { resolve(found: JobResource | undefined): void; reject(error: Error): void }[] = []
  const reader = {
    read: () => new Promise<JobResource | undefined>((resolve, reject) => reads.push({ resolve, reject })),
  }
  const cache = createStatusCache(testConfig(settings), reader, () => nowMs)
  t.teardown(() => cache.close())
  const fill = async (found: JobResource | undefined) => {
    const fetched = cache.fetch(ref, plain)
    reads.at(-1)!.resolve(found)
    return fetched
  }
  const peek = () => cache.peek('q:a', plain, nowMs)
  const pass = (ms: number) => {
    nowMs += ms
  }
  return { cache, reads, fill, peek, pass }
}

t.test('reads of one id that miss together are one read', async (t) => {
  const { cache, reads } = setUp()
  const asked = Array.from({ length: 1_000 }, () => cache.fetch(ref, plain))
  t.equal(reads.length, 1)
  reads[0]!.resolve(job())
  const bodies = new Set((await Promise.all(asked)).map(({ job }) => job?.body))
  t.equal(bodies.size, 1)
})

t.test(
  'an answer is served until its time is up: unfinished, finished and missing each have their own',
  async (t) => {
    for (const [found, ttlMs] of [
      [job('active'), 1_000],
      [job('completed'), 60_000],
      [job('failed'), 60_000],
      [undefined, 300],
    ] as const) {
      const { fill, peek, pass } = setUp({
        CACHE_TTL_SHORT: '1000',
        CACHE_TTL_LONG: '60000',
        CACHE_TTL_MISSING: '300',
      })
      await fill(found)
      pass(ttlMs - 1)
      t.equal(peek()?.source, 'hit', `${found?.state} after ${ttlMs - 1} ms`)
      pass(1)
      t.equal(peek(), undefined, `${found?.state} after ${ttlMs} ms`)
    }
  },
)

t.test('a read that was under way when the job was written is answered and not kept', async (t) => {
  const { cache, reads, peek } = setUp()
  const before = cache.fetch(ref, plain)
  cache.forget('q', 'a')
  const after = cache.fetch(ref, plain)
  t.equal(reads.length, 2, 'who asks after the write does not join the read from before it')
  reads[0]!.resolve(undefined)
  t.equal((await before).job, undefined)
  t.equal(peek(), undefined, 'the old answer was not kept')
  reads[1]!.resolve(job())
  await after
  t.equal(peek()?.job?.body, JSON.stringify(job()))
})

t.test('forgetting a job forgets it with its data too, and no other', async (t) => {
  const { cache, reads, fill, peek } = setUp()
  await fill(job())
  const withData = cache.fetch(ref, { data: true, logs: false })
  reads.at(-1)!.resolve({ ...job(), data: 1 })
  await withData
  cache.forget('q', 'b')
  t.ok(peek())
  cache.forget('q', 'a')
  t.equal(peek(), undefined)
  t.equal(cache.peek('q:a', { data: true, logs: false }, 0), undefined)
})

t.test(
  'while Redis is away the last that was known is served as stale, not for ever, and nothing is made up',
  async (t) => {
    const { cache, reads, fill, pass } = setUp({ CACHE_TTL_SHORT: '100', CACHE_STALE_KEEP: '5000' })
    await fill(job())
    pass(1_000)
    const away = () => {
      const fetched = cache.fetch(ref, plain)
      reads.at(-1)!.reject(new SluiceError('REDIS_UNAVAILABLE'))
      return fetched
    }
    t.match(await away(), { source: 'stale', job: { body: JSON.stringify(job()) } })
    pass(5_000)
    await t.rejects(away(), { code: 'REDIS_UNAVAILABLE' })
    const unknown = cache.fetch({ queue: 'q', key: 'b' }, plain)
    reads.at(-1)!.reject(new SluiceError('REDIS_UNAVAILABLE'))
    await t.rejects(unknown, { code: 'REDIS_UNAVAILABLE' })
  },
)

t.test('a job that is known to be gone is not brought back by an outage', async (t) => {
  const { cache, reads, fill, pass } = setUp({ CACHE_TTL_MISSING: '100' })
  await fill(job())
  await fill(undefined)
  pass(200)
  const fetched = cache.fetch(ref, plain)
  reads.at(-1)!.reject(new SluiceError('REDIS_UNAVAILABLE'))
  await t.rejects(fetched, { code: 'REDIS_UNAVAILABLE' })
})

t.test('a read that is to be fresh joins none that began before', async (t) => {
  const { cache, reads } = setUp()
  const earlier = cache.fetch(ref, plain)
  const fresh = cache.fetch(ref, plain, { bypass: true })
  t.equal(reads.length, 2)
  for (const read of reads) read.resolve(job())
  t.equal((await earlier).source, 'miss')
  t.equal((await fresh).source, 'bypass')
})

t.test('with every TTL at 0 nothing is kept and nothing is shared', async (t) => {
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

t.test('the memory is bounded by bytes, the oldest goes first, and the counts are true', async (t) => {
  const { cache, reads, pass } = setUp({ CACHE_MAX_BYTES: '65536', CACHE_TTL_SHORT: '1000' })
  for (let i = 0; i < 200; i++) {
    const fetched = cache.fetch({ queue: 'q', key: `k${i}` }, plain)
    reads.at(-1)!.resolve(job())
    await fetched
  }
  const { bytes, maxBytes, totalEntries, validEntries } = cache.stats()
  t.ok(bytes <= maxBytes)
  t.ok(totalEntries > 20 && totalEntries < 200, `${totalEntries} entries`)
  t.equal(validEntries, totalEntries)
  t.equal(cache.peek('q:k0', plain, 0), undefined, 'the first is gone')
  t.ok(cache.peek('q:k199', plain, 0), 'the last is there')
  t.match(cache.stats(), { hits: 1, misses: 1, hitRatio: 0.5 })
  pass(1_000)
  t.match(cache.stats(), { validEntries: 0, expiredEntries: totalEntries })
})
