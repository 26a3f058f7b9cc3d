/** When the breaker keeps commands back, and how one at a time finds out that it need not. */
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

t.test('closed, it keeps nobody back, whatever is answered', async (t) => {
  const { breaker, isAdmitted } = open()
  breaker.answered()
  t.ok(isAdmitted() && isAdmitted())
  t.same(breaker.stats(), { open: false, reason: null, retryInMs: 0, opened: 0 })
})

t.test('a limit keeps all back, by name and with the time to come back', async (t) => {
  const { breaker, isAdmitted } = open()
  breaker.refused(LIMIT)
  t.notOk(isAdmitted())
  t.throws(() => breaker.admit(), {
    code: 'REDIS_LIMIT',
    details: { outcome: 'not_executed', retryAfterS: 1, detail: /max daily request limit exceeded/ },
  })
  t.same(breaker.stats(), { open: true, reason: LIMIT, retryInMs: 1_000, opened: 1 })
})

t.test('after the pause one goes through; its answer opens the way for all', async (t) => {
  const { breaker, isAdmitted, pass } = open()
  breaker.refused(LIMIT)
  pass(1_000)
  t.ok(isAdmitted(), 'the first tries it')
  t.notOk(isAdmitted(), 'the others wait for what it finds')
  breaker.answered()
  t.ok(isAdmitted() && isAdmitted())
})

t.test('each try that is refused doubles the pause, up to a minute', async (t) => {
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

t.test('those that were on the way together count as one refusal', async (t) => {
  const { breaker } = open()
  for (let i = 0; i < 100; i++) breaker.refused(LIMIT)
  t.equal(breaker.stats().retryInMs, 1_000)
  breaker.answered()
  t.ok(breaker.stats().open, 'and an answer to what was sent before says nothing')
})

t.test('a try that is lost is followed by another', async (t) => {
  const { breaker, isAdmitted, pass } = open()
  breaker.refused(LIMIT)
  pass(1_000)
  t.ok(isAdmitted())
  pass(5_000)
  t.ok(isAdmitted())
})
