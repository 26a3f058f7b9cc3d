import t from 'tap'
import { planWaves } from '../../../src/jobs/enqueue/queue-groups.ts'

/** Entries named by queue and number: `a1`. */
function plan(names: string[], queuesMax: number): string[][] {
  const entries = names.map((name) => ({ queue: name[0]!, name }))
  return planWaves(entries, queuesMax).map((wave) =>
    wave.map(({ queue, entries }) => `${queue}:${entries.map(({ name }) => name).join(' ')}`),
  )
}

t.test('entries are grouped by queue and keep their order', async (t) => {
  t.same(plan(['a1', 'b1', 'a2', 'c1', 'b2', 'a3'], 50), [['a:a1 a2 a3', 'b:b1 b2', 'c:c1']])
})

t.test('a wave has at most queuesMax queues, in the order of appearance', async (t) => {
  t.same(plan(['a1', 'b1', 'c1', 'd1', 'e1', 'a2', 'e2'], 2), [
    ['a:a1 a2', 'b:b1'],
    ['c:c1', 'd:d1'],
    ['e:e1 e2'],
  ])
  t.same(plan(['b1', 'a1'], 1), [['b:b1'], ['a:a1']])
})

t.test('without entries there is no wave', async (t) => {
  t.same(plan([], 2), [])
})
