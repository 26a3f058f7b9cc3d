/** How long an entry of the cache may be kept and served, without Redis. */
import t from 'tap'
import {
  createEntry,
  foundIn,
  freshUntil,
  hasReceivedAll,
  isInvalidatedBy,
  staleIn,
} from '../../../src/jobs/status/cache-entry.ts'
import { type JobResource, resourceOfNewJob } from '../../../src/jobs/status/job-resource.ts'

const NOW_MS = 1_000_000
const ttls = { finishedMs: 60_000, unfinishedMs: 5_000, missingMs: 300 }

function job(state: JobResource['state'] = 'waiting'): JobResource {
  return resourceOfNewJob({ queue: 'q', key: 'a' }, { name: 'n', state, timestamp: 1_790_000_000_000 }, {})
}

const liveFeed = () => ({
  queue: 'q',
  isLive: true,
  epoch: 3,
  isClosed: false,
  position: '5-0',
  usedAtMs: 0,
})
const entryOf = (
  found: JobResource | undefined,
  feed = liveFeed() as ReturnType<typeof liveFeed> | undefined,
) => createEntry({ job: found, position: '5-0' }, feed, ttls, NOW_MS)

t.test('the TTL depends on the kind of result', async (t) => {
  t.equal(entryOf(job('waiting')).ttlMs, 5_000)
  t.equal(entryOf(job('completed')).ttlMs, 60_000)
  t.equal(entryOf(job('failed')).ttlMs, 60_000)
  t.equal(entryOf(undefined).ttlMs, 300)
  const unfollowed = createEntry({ job: undefined, position: '0-0' }, undefined, ttls, NOW_MS)
  t.equal(unfollowed.ttlMs, 100, 'no event would report that the job was created')
  const off = createEntry({ job: undefined, position: '0-0' }, undefined, { ...ttls, missingMs: 0 }, NOW_MS)
  t.equal(off.ttlMs, 0)
})

t.test('a fresh entry is served until its TTL ends', async (t) => {
  const entry = entryOf(job())
  t.equal(freshUntil(entry), NOW_MS + 5_000)
  t.match(foundIn(entry, 'hit', NOW_MS + 1_000), {
    source: 'hit',
    ttlMs: 4_000,
    degraded: false,
    position: '5-0',
  })
  t.match(foundIn(entry, 'miss', NOW_MS + 9_000), { source: 'miss', ttlMs: 0 })
})

t.test('a degraded entry is served for a second at most', async (t) => {
  const feed = liveFeed()
  const entry = entryOf(job('completed'), feed)
  feed.isLive = false
  t.equal(freshUntil(entry), NOW_MS + 1_000)
  t.match(foundIn(entry, 'hit', NOW_MS), { degraded: true, ttlMs: 1_000 })
  feed.isLive = true
  t.equal(freshUntil(entry), NOW_MS + 60_000, 'events arrive again, without a gap')
  const short = createEntry({ job: undefined, position: '0-0' }, undefined, ttls, NOW_MS)
  t.equal(freshUntil(short), NOW_MS + 100, 'a shorter TTL stays')
})

t.test('a detached entry is not served', async (t) => {
  const gap = liveFeed()
  const afterGap = entryOf(job(), gap)
  gap.epoch++
  t.equal(freshUntil(afterGap), Number.NEGATIVE_INFINITY)
  const closed = liveFeed()
  const afterClose = entryOf(job(), closed)
  closed.isClosed = true
  t.equal(freshUntil(afterClose), Number.NEGATIVE_INFINITY)
  closed.isLive = false
  t.equal(freshUntil(afterClose), Number.NEGATIVE_INFINITY, 'nor as a degraded one')
})

t.test('a stale entry is served for the time that it is kept, unless its feed had a gap', async (t) => {
  const feed = liveFeed()
  const entry = entryOf(job(), feed)
  t.match(staleIn(entry, 1_000, NOW_MS + 6_000), { source: 'stale', ttlMs: -1_000, degraded: true })
  t.equal(staleIn(entry, 1_000, NOW_MS + 6_001), undefined)
  feed.isClosed = true
  t.ok(staleIn(entry, 1_000, NOW_MS + 6_000), 'a closed feed is no gap')
  feed.epoch++
  t.equal(staleIn(entry, 1_000, NOW_MS + 6_000), undefined)
  t.equal(staleIn(entryOf(undefined), 1_000, NOW_MS), undefined, 'a missing job is not served as stale')
})

t.test('only a later event invalidates an entry', async (t) => {
  const entry = entryOf(job())
  t.notOk(isInvalidatedBy('4-9', entry))
  t.notOk(isInvalidatedBy('5-0', entry))
  t.ok(isInvalidatedBy('5-1', entry))
  t.ok(isInvalidatedBy('10-0', entry), 'compared as numbers')
})

t.test('a read is kept only if every event since it was received', async (t) => {
  const feed = liveFeed()
  const read = { feed, position: '5-0' }
  t.ok(hasReceivedAll(read, feed, 3))
  t.notOk(hasReceivedAll(read, feed, 2), 'a gap in the meantime')
  t.notOk(hasReceivedAll(read, liveFeed(), 3), 'another feed than before')
  t.notOk(hasReceivedAll({ feed: undefined, position: '5-0' }, feed, 3), 'the feed is gone')
  t.ok(hasReceivedAll(read, undefined, undefined), 'the read opened the feed')
  t.ok(hasReceivedAll({ feed: undefined, position: '5-0' }, undefined, undefined))
  feed.position = '5-1'
  t.notOk(hasReceivedAll(read, undefined, undefined), 'another request opened it from a later position')
})
