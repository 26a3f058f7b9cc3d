/** The jobs that takes pass over: for how long, how many, and when a take should try one again. */
import t from 'tap'
import { createSchedulerNotices } from '../../src/dispatch/scheduler-notices.ts'
import { createSkippedJobs } from '../../src/dispatch/skipped-jobs.ts'

function open() {
  const clock = { ms: 5_000 }
  return { clock, skipped: createSkippedJobs(() => clock.ms) }
}

t.test('a job is passed over until its time, then offered once, without a spin if it is gone', async (t) => {
  const { clock, skipped } = open()
  t.equal(skipped.nextInMs('q'), undefined)
  t.ok(skipped.add('q', 'a', 's', 'refused'))
  t.same([skipped.keys('q'), skipped.nextInMs('q'), skipped.keys('other')], [['a'], 1_000, []])
  clock.ms += 999.5
  t.same([skipped.keys('q'), skipped.nextInMs('q')], [['a'], 1])
  clock.ms += 10
  t.equal(skipped.nextInMs('q'), 1, 'the last take passed over it, so another must follow')
  t.same([skipped.keys('q'), skipped.nextInMs('q')], [[], undefined])
})

t.test(
  'a job that no worker takes is tried less and less often, and reported until it is gone',
  async (t) => {
    const { clock, skipped } = open()
    skipped.add('q', 'a', 's', 'unknown')
    t.same(skipped.stuck(), [], 'a native worker may take it')
    const pauses = []
    for (let tries = 0; tries < 6; tries++) {
      pauses.push(skipped.nextInMs('q'))
      clock.ms += skipped.nextInMs('q')!
      t.same(skipped.keys('q'), [])
      skipped.add('q', 'a', 's', 'unknown')
      t.same(skipped.stuck(), [{ queue: 'q', schedulerId: 's' }])
    }
    t.same(pauses, [30_000, 60_000, 120_000, 240_000, 300_000, 300_000])
    clock.ms += 300_000 + 90_000
    t.same(skipped.stuck(), [])
  },
)

t.test('the jobs of a queue and the length of their keys are bounded', async (t) => {
  const { clock, skipped } = open()
  t.notOk(skipped.add('q', 'k'.repeat(1_001), 's', 'unknown'))
  for (let i = 0; i < 100; i++) t.ok(skipped.add('q', `k${i}`, 's', 'unknown'))
  t.notOk(skipped.add('q', 'more', 's', 'unknown'))
  t.ok(skipped.add('q', 'k0', 's', 'unknown'), 'one that is known')
  for (let i = 0; i < 300; i++) skipped.add(`q${i}`, 'k', 's', 'refused')
  t.equal(skipped.keys('q').length, 0, 'the queue used least recently is dropped')
  clock.ms += 100_000
  t.ok(skipped.add('q299', 'k', 's', 'refused'))
})

t.test('one line is logged for a scheduler, and it is remembered if it has ended', async (t) => {
  const lines: unknown[] = []
  const notices = createSchedulerNotices({ warn: (...line: unknown[]) => lines.push(line) })
  for (let i = 0; i < 3; i++) {
    notices.note('q', 's', 'unknown', 'no cron')
    notices.note('q', 'm', 'malformed', undefined)
  }
  t.match(lines, [
    [{ queue: 'q', scheduler: 's', reason: 'no cron' }, /settings.repeatStrategy/],
    [{ queue: 'q', scheduler: 'm' }, /has ended/],
  ])
  t.equal(lines.length, 2)
  t.same(notices.ended(), [{ queue: 'q', schedulerId: 'm', kind: 'malformed' }])
})
