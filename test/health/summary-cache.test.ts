/** How long a summary is served from memory, and that probes that arrive together share one measurement. */
import t from 'tap'
import type { HealthStatus } from '../../src/health/health-responses.ts'
import { createSummaryCache, isFresh } from '../../src/health/summary-cache.ts'

t.test('a summary is fresh for its TTL, a failure for a second at most', async (t) => {
  t.ok(isFresh(59_999, 'pass', 60_000))
  t.notOk(isFresh(60_000, 'pass', 60_000))
  t.ok(isFresh(59_999, 'warn', 60_000))
  t.ok(isFresh(999, 'fail', 60_000))
  t.notOk(isFresh(1_000, 'fail', 60_000))
  t.notOk(isFresh(500, 'fail', 500), 'a shorter TTL holds')
  t.notOk(isFresh(0, 'pass', 0), 'a TTL of 0 caches nothing')
})

function counted(status: HealthStatus = 'pass') {
  let nowMs = 0
  let computed = 0
  const cache = createSummaryCache(
    async () => ({ status, number: ++computed }),
    () => nowMs,
  )
  return {
    ...cache,
    advance(ms: number) {
      nowMs += ms
    },
  }
}

t.test('readers that arrive together share one computation', async (t) => {
  const { read } = counted()
  const results = await Promise.all([read(0), read(0), read(0)])
  t.same(
    results.map(({ summary, isCached }) => [summary.number, isCached]),
    [
      [1, false],
      [1, false],
      [1, false],
    ],
  )
  t.equal((await read(0)).summary.number, 2)
})

t.test('a summary is served from memory until its TTL has passed or it is cleared', async (t) => {
  const { read, advance, clear } = counted()
  await read(1_000)
  advance(999)
  t.match(await read(1_000), { summary: { number: 1 }, isCached: true })
  advance(1)
  t.match(await read(1_000), { summary: { number: 2 }, isCached: false })
  clear()
  t.match(await read(1_000), { summary: { number: 3 }, isCached: false })
})

t.test('a computation that fails is not cached, and the next read computes anew', async (t) => {
  let fails = true
  const { read } = createSummaryCache(async () => {
    if (fails) throw new Error('no')
    return { status: 'pass' as const }
  })
  await t.rejects(read(1_000), { message: 'no' })
  fails = false
  t.match(await read(1_000), { isCached: false })
})

t.test(
  'what was being computed when the cache was cleared is neither kept nor given to later readers',
  async (t) => {
    const finish: ((number: number) => void)[] = []
    const { read, clear } = createSummaryCache(async () => ({
      status: 'pass' as const,
      number: await new Promise<number>((resolve) => finish.push(resolve)),
    }))
    const before = read(1_000)
    clear()
    const after = read(1_000)
    finish[0]!(1)
    t.match(await before, { summary: { number: 1 } })
    const joining = read(1_000)
    t.equal(finish.length, 2, 'the later readers share one computation')
    finish[1]!(2)
    t.match(await after, { summary: { number: 2 }, isCached: false })
    t.match(await joining, { summary: { number: 2 }, isCached: false })
    t.match(await read(1_000), { summary: { number: 2 }, isCached: true })
  },
)
