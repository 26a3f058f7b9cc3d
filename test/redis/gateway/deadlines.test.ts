import t from 'tap'
import { createDeadlines } from '../../../src/redis/gateway/deadlines.ts'

const never = new Promise<never>(() => {})
const late = () => new Error('late')
/** Timers that keep this process alive. tap has its own, so tests compare differences. */
const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

t.test('work that takes too long is rejected with the reason, not earlier than its deadline', async (t) => {
  const deadlines = createDeadlines(20)
  t.teardown(deadlines.close)
  const startedAt = performance.now()
  const deadline = deadlines.start()
  t.notOk(deadline.expired)
  await t.rejects(deadline.race(never, late), { message: 'late' })
  t.ok(performance.now() - startedAt >= 19)
  t.ok(deadline.expired)
})

t.test('work that is done in time settles as usual', async (t) => {
  const deadlines = createDeadlines(60_000)
  t.teardown(deadlines.close)
  const deadline = deadlines.start()
  t.equal(await deadline.race(Promise.resolve(7), late), 7)
  await t.rejects(deadline.race(Promise.reject(new Error('its own')), late), { message: 'its own' })
  t.notOk(deadline.expired)
  deadline.stop()
})

t.test('one deadline covers several pieces of work in sequence', async (t) => {
  const deadlines = createDeadlines(20)
  t.teardown(deadlines.close)
  const deadline = deadlines.start()
  t.equal(await deadline.race(Promise.resolve('permit'), late), 'permit')
  await t.rejects(deadline.race(never, late), { message: 'late' })
  await t.rejects(
    deadline.race(Promise.resolve('too late'), late),
    { message: 'late' },
    'the deadline does not start again',
  )
})

t.test('deadlines expire in the order in which they started, on one timer', async (t) => {
  const deadlines = createDeadlines(20)
  t.teardown(deadlines.close)
  const before = timers()
  const expired: number[] = []
  const all = Array.from({ length: 1_000 }, async (_, index) => {
    const deadline = deadlines.start()
    await deadline.race(never, late).catch(() => expired.push(index))
    deadline.stop()
  })
  t.equal(timers(), before + 1)
  await Promise.all(all)
  t.same(
    expired,
    Array.from({ length: 1_000 }, (_, index) => index),
  )
  t.equal(timers(), before, 'no timer is left')
})

t.test('a stopped deadline does not expire, and the next one still does', async (t) => {
  const deadlines = createDeadlines(20)
  t.teardown(deadlines.close)
  const stopped = deadlines.start()
  const expired: string[] = []
  void stopped.race(never, late).catch(() => expired.push('stopped'))
  const next = deadlines.start()
  stopped.stop()
  await t.rejects(next.race(never, late), { message: 'late' })
  t.same(expired, [])
  t.notOk(stopped.expired)
})

t.test('without a running deadline there is no timer; the next start creates one', async (t) => {
  const deadlines = createDeadlines(60_000)
  t.teardown(deadlines.close)
  const before = timers()
  const [first, second] = [deadlines.start(), deadlines.start()]
  first.stop()
  t.equal(timers(), before + 1)
  second.stop()
  t.equal(timers(), before)
  deadlines.start()
  t.equal(timers(), before + 1)
})

t.test('close releases the timer, and no deadline expires afterwards', async (t) => {
  const closed = createDeadlines(5)
  const before = timers()
  const deadline = closed.start()
  const expired: string[] = []
  void deadline.race(never, late).catch(() => expired.push('after close'))
  t.equal(timers(), before + 1)
  closed.close()
  closed.close()
  t.equal(timers(), before)
  const longer = createDeadlines(20)
  t.teardown(longer.close)
  await t.rejects(longer.start().race(never, late), { message: 'late' })
  t.same(expired, [])
  t.notOk(deadline.expired)
})
