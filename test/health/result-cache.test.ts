/** How long a result is served from memory, and that requests that arrive together share one check. */
import t from 'tap'
import type { HealthStatus } from '../../src/health/health-responses.ts'
import { createResultCache, isFresh } from '../../src/health/result-cache.ts'

t.test('a result is fresh for its TTL, a failure for a second at most', async (t) => {
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
  const cache = createResultCache(
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

t.test('readers that arrive together share one check', async (t) => {
  const { read } = counted()
  const results = await Promise.all([read(0), read(0), read(0)])
  t.same(
    results.map(({ result, isCached }) => [result.number, isCached]),
    [
      [1, false],
      [1, false],
      [1, false],
    ],
  )
  t.equal((await read(0)).result.number, 2)
})

t.test('a result is served from memory until its TTL has passed or it is cleared', async (t) => {
  const { read, advance, clear } = counted()
  await read(1_000)
  advance(999)
  t.match(await read(1_000), { result: { number: 1 }, isCached: true })
  advance(1)
  t.match(await read(1_000), { result: { number: 2 }, isCached: false })
  clear()
  t.match(await read(1_000), { result: { number: 3 }, isCached: false })
})

t.test('a check that throws is not cached, and the next read begins a new one', async (t) => {
  let fails = true
  const { read } = createResultCache(async () => {
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
    const { read, clear } = createResultCache(async () => ({
      status: 'pass' as const,
      number: await new Promise<number>((resolve) => finish.push(resolve)),
    }))
    const before = read(1_000)
    clear()
    const after = read(1_000)
    finish[0]!(1)
    t.match(await before, { result: { number: 1 } })
    const joining = read(1_000)
    t.equal(finish.length, 2, 'the later readers share one check')
    finish[1]!(2)
    t.match(await after, { result: { number: 2 }, isCached: false })
    t.match(await joining, { result: { number: 2 }, isCached: false })
    t.match(await read(1_000), { result: { number: 2 }, isCached: true })
  },
)
