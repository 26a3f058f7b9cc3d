/** When to poll again, and what counts as unchanged. */
import t from 'tap'
import { isNotModified, retryAfterS } from '../../../src/jobs/status/polling.ts'

const NOW_MS = 1_790_000_000_000

t.test('Retry-After doubles with the age of the job, from 1 s to 30 s', async (t) => {
  const waits: [ageS: number, waitS: number][] = [
    [0, 1],
    [1.9, 1],
    [2, 2],
    [3.9, 2],
    [4, 4],
    [8, 8],
    [15.9, 8],
    [16, 16],
    [31.9, 16],
    [32, 30],
    [3_600, 30],
    [31_536_000, 30],
  ]
  for (const [ageS, waitS] of waits)
    t.equal(retryAfterS(NOW_MS - ageS * 1000, 0, NOW_MS), waitS, `${ageS} s old`)
})

t.test('a job with a time in the future counts as new', async (t) => {
  t.equal(retryAfterS(NOW_MS + 60_000, 0, NOW_MS), 1)
})

t.test('a delayed job is polled when it is due, and at least once an hour', async (t) => {
  const dueIn = (ms: number) => retryAfterS(NOW_MS, NOW_MS + ms, NOW_MS)
  t.equal(dueIn(1_001), 2, 'rounded up: polling a second early is useless')
  t.equal(dueIn(90_000), 90)
  t.equal(dueIn(3_600_000), 3_600)
  t.equal(dueIn(3_600_001), 3_600)
  t.equal(dueIn(7 * 86_400_000), 3_600)
})

t.test('a delayed job that is due within a second is polled by its age', async (t) => {
  for (const delayedUntilMs of [NOW_MS + 1_000, NOW_MS, NOW_MS - 60_000]) {
    t.equal(retryAfterS(NOW_MS - 5_000, delayedUntilMs, NOW_MS), 4)
  }
})

t.test('If-None-Match matches a single tag, a list, a weak tag and the star', async (t) => {
  for (const header of ['"a"', 'W/"a"', '*', '"b", "a"', '"b",W/"a" , "c"', ' "a" ']) {
    t.ok(isNotModified(header, '"a"'), header)
  }
  for (const header of [undefined, '', '"b"', 'a', '"A"', '"ab"', '"b", "c"', 'w/"a"']) {
    t.notOk(isNotModified(header, '"a"'), header ?? 'none')
  }
})
