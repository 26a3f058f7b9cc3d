/** The checker finds each kind of violation in a history that contains it, and none in a valid history. */
import t from 'tap'
import { addUp, check, percentile, type Seen, slopePerHour } from './checker.ts'
import { createHistory, type Outcome } from './history.ts'

/** A history with one operation per outcome, and a matching Redis. */
function validHistory(...outcomes: Outcome[]) {
  const history = createHistory('t')
  const seen: Seen = { jobs: new Map(), executions: new Map(), broken: [] }
  for (const outcome of outcomes) {
    const operation = history.invoke(0)
    operation.outcome = outcome
    if (outcome !== 'ok') continue
    operation.id = `q:${operation.payload}`
    seen.jobs.set(operation.payload, new Set([operation.id]))
    seen.executions.set(operation.payload, 1)
  }
  return { history, seen }
}

t.test('a valid history has no violations', async (t) => {
  const { history, seen } = validHistory('ok', 'fail', 'unknown', 'ok')
  t.same(check(history, seen), {
    ...{ attempted: 4, acknowledged: 2, failed: 1, unknown: 1, recovered: 0, redelivered: 0 },
    ...{ lost: [], unexpected: [], duplicated: [], falseFail: [], misnamed: [] },
  })
})

t.test('an acknowledged job that is missing from Redis is lost', async (t) => {
  const { history, seen } = validHistory('ok', 'ok')
  seen.jobs.delete('t-1')
  t.same(check(history, seen).lost, ['t-1'])
})

t.test('an acknowledged job that no worker receives is lost', async (t) => {
  const { history, seen } = validHistory('ok', 'ok')
  seen.executions.delete('t-0')
  t.same(check(history, seen).lost, ['t-0'])
})

t.test('a job that is not in the history is unexpected', async (t) => {
  const { history, seen } = validHistory('ok')
  seen.jobs.set('t-7', new Set(['q:1']))
  t.same(check(history, seen).unexpected, ['t-7'])
})

t.test('two jobs for one operation are a duplicate; one job that runs twice is not', async (t) => {
  const { history, seen } = validHistory('ok', 'ok')
  seen.executions.set('t-0', 2)
  seen.jobs.get('t-1')!.add('q:another')
  t.match(check(history, seen), { duplicated: ['t-1'], redelivered: 1 })
})

t.test('a job that exists although it was reported as not executed is a false fail', async (t) => {
  const { history, seen } = validHistory('fail')
  seen.jobs.set('t-0', new Set(['q:1']))
  const { falseFail, recovered, unexpected } = check(history, seen)
  t.same({ falseFail, recovered, unexpected }, { falseFail: ['t-0'], recovered: 0, unexpected: [] })
})

t.test('a job of unknown outcome may exist or not', async (t) => {
  const { history, seen } = validHistory('unknown', 'unknown')
  seen.jobs.set('t-0', new Set(['q:1']))
  const { falseFail, recovered, lost } = check(history, seen)
  t.same({ falseFail, recovered, lost }, { falseFail: [], recovered: 1, lost: [] })
})

t.test('an acknowledged id that differs from that of the job is misnamed', async (t) => {
  const { history, seen } = validHistory('ok')
  seen.jobs.set('t-0', new Set(['q:another']))
  t.same(check(history, seen).misnamed, ['t-0'])
})

t.test('the verdicts of several histories add up to counts', async (t) => {
  const one = validHistory('ok', 'fail')
  const two = validHistory('ok')
  two.seen.jobs.clear()
  const sums = addUp([check(one.history, one.seen), check(two.history, two.seen)])
  t.match(sums, { attempted: 3, acknowledged: 2, failed: 1, lost: 1, duplicated: 0 })
})

t.test('percentiles are taken by rank, and slopes are growth per hour', async (t) => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i)
  t.equal(percentile(values, 0.99), 100)
  t.equal(percentile(values, 0.5), 51)
  t.equal(percentile([], 0.5), 0)
  t.equal(slopePerHour([0, 1, 2].map((s) => ({ atMs: s * 1_000, value: 5 + s }))), 3_600)
  t.equal(slopePerHour([{ atMs: 0, value: 5 }]), 0)
})
