/** When a feed stays open and when it is closed, without Redis. */
import t from 'tap'
import { idlestOf, isExpired } from '../../src/events/feed-state.ts'

const NOW_MS = 1_790_000_000_000
const feed = (agoMs: number, retainCount = 0) => ({ usedAtMs: NOW_MS - agoMs, retainCount })

t.test('an unused feed expires after a minute, a retained one never', async (t) => {
  t.notOk(isExpired(feed(0), NOW_MS))
  t.notOk(isExpired(feed(60_000), NOW_MS))
  t.ok(isExpired(feed(60_001), NOW_MS))
  t.notOk(isExpired(feed(600_000, 1), NOW_MS))
})

t.test('the least recently used feed makes room', async (t) => {
  const feeds = [feed(20_000), feed(30_000), feed(25_000)]
  t.equal(idlestOf(feeds, NOW_MS), feeds[1])
  t.equal(idlestOf([], NOW_MS), undefined)
})

t.test('a feed that was used in the last 10 s makes no room', async (t) => {
  t.equal(idlestOf([feed(9_999), feed(0)], NOW_MS), undefined)
  const idle = feed(10_000)
  t.equal(idlestOf([feed(9_999), idle], NOW_MS), idle)
})

t.test('a retained feed makes no room, however long ago it was used', async (t) => {
  const idle = feed(15_000)
  t.equal(idlestOf([feed(600_000, 2), idle], NOW_MS), idle)
  t.equal(idlestOf([feed(600_000, 1), feed(5_000)], NOW_MS), undefined)
})
