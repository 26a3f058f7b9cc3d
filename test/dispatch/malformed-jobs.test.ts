/** Malformed jobs are all counted; the log has few lines for them, and short ones. */
import t from 'tap'
import { createMalformedJobs } from '../../src/dispatch/malformed-jobs.ts'

t.test('a window has 20 lines, and the next line says how many jobs had none', async (t) => {
  let nowMs = 0
  const lines: object[] = []
  const jobs = createMalformedJobs({ warn: (line: object) => void lines.push(line) } as never, () => nowMs)
  const many = Array.from({ length: 50 }, (_, index) => ({ key: `j${index}`, reason: 'r' }))
  jobs.note('q', many)
  t.equal(lines.length, 20)
  nowMs += 60_000
  jobs.note('q', [{ key: 'last', reason: 'r' }])
  t.match(lines.at(-1), { queue: 'q', job: 'last', reason: 'r', unlogged: 30 })
  t.equal(jobs.count(), 51)
})

t.test('a line has the start of a long id', async (t) => {
  const lines: object[] = []
  const jobs = createMalformedJobs({ warn: (line: object) => void lines.push(line) } as never)
  jobs.note('q', [{ key: 'k'.repeat(100_000), reason: 'r' }])
  t.ok(JSON.stringify(lines).length < 500)
  t.match(lines, [{ job: /^k{200}$/ }])
})
