/** When the breaker rejects commands, and how a single probe closes it again. */
import t from 'tap'
import { createRedisBreaker } from '../../../src/redis/gateway/redis-breaker.ts'

const LIMIT = 'ERR max daily request limit exceeded'

function open() {
  let nowMs = 0
  const breaker = createRedisBreaker(() => nowMs)
  const isAdmitted = () => {
    try {
      breaker.admit()
      return true
    } catch {
      return false
    }
  }
  return { breaker, isAdmitted, pass: (ms: number) => (nowMs += ms) }
}

t.test('a closed breaker admits every command', async (t) => {
  const { breaker, isAdmitted } = open()
  breaker.answered()
  t.ok(isAdmitted() && isAdmitted())
  t.same(breaker.stats(), { open: false, reason: null, retryInMs: 0, opened: 0 })
})

t.test('a limit rejects every command with its reason and the time to retry', async (t) => {
  const { breaker, isAdmitted } = open()
  breaker.refused(LIMIT)
  t.notOk(isAdmitted())
  t.throws(() => breaker.admit(), {
    code: 'REDIS_LIMIT',
    details: { outcome: 'not_executed', retryAfterS: 1, detail: /max daily request limit exceeded/ },
  })
  t.same(breaker.stats(), { open: true, reason: LIMIT, retryInMs: 1_000, opened: 1 })
})

t.test('after the pause one probe is admitted; its answer closes the breaker', async (t) => {
  const { breaker, isAdmitted, pass } = open()
  breaker.refused(LIMIT)
  pass(1_000)
  t.ok(isAdmitted(), 'the first command is the probe')
  t.notOk(isAdmitted(), 'others are rejected until the probe is answered')
  breaker.answered()
  t.ok(isAdmitted() && isAdmitted())
})

t.test('each refused probe doubles the pause, up to a minute', async (t) => {
  const { breaker, isAdmitted, pass } = open()
  breaker.refused(LIMIT)
  for (const pauseMs of [1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 1_000)) {
    t.equal(breaker.stats().retryInMs, pauseMs)
    pass(pauseMs - 1)
    t.notOk(isAdmitted())
    pass(1)
    t.ok(isAdmitted())
    breaker.refused(LIMIT)
  }
  t.equal(breaker.stats().opened, 1)
})

t.test('refusals of commands in flight count as one', async (t) => {
  const { breaker } = open()
  for (let i = 0; i < 100; i++) breaker.refused(LIMIT)
  t.equal(breaker.stats().retryInMs, 1_000)
  breaker.answered()
  t.ok(breaker.stats().open, 'an answer to an earlier command does not close the breaker')
})

t.test('a lost probe is followed by another', async (t) => {
  const { breaker, isAdmitted, pass } = open()
  breaker.refused(LIMIT)
  pass(1_000)
  t.ok(isAdmitted())
  pass(5_000)
  t.ok(isAdmitted())
})
