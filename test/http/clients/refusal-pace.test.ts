/** A flood of refused requests is answered at a bounded rate, and everything else at once. */
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { createRefusalPace } from '../../../src/http/clients/refusal-pace.ts'
import { eventually, startApp } from '../../helpers/app.ts'
import { openRawClient } from '../../helpers/raw-client.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

function paceOf(t: Test, maxPerSecond: number) {
  const pace = createRefusalPace(maxPerSecond)
  t.teardown(pace.close)
  let sent = 0
  const refuse = (count: number) => {
    let isPaced = true
    for (let i = 0; i < count; i++) isPaced = pace.send(() => sent++)
    return isPaced
  }
  return { pace, refuse, sent: () => sent }
}

t.test('a burst of a tenth of a second is answered at once', async (t) => {
  const { pace, refuse, sent } = paceOf(t, 1_000)
  refuse(100)
  t.equal(sent(), 100)
  t.equal(pace.delayed(), 0)
})

t.test('beyond it the answers come at the rate', async (t) => {
  const { pace, refuse, sent } = paceOf(t, 1_000)
  const startedAt = performance.now()
  refuse(400)
  t.ok(sent() < 120, `${sent()} at once`)
  t.ok(pace.delayed() > 280)
  await eventually(() => sent() === 400)
  const tookMs = performance.now() - startedAt
  t.ok(tookMs >= 250, `the last one after ${tookMs} ms`)
})

t.test('0 delays nothing; closing sends what waits', async (t) => {
  const unlimited = paceOf(t, 0)
  unlimited.refuse(1_000)
  t.equal(unlimited.sent(), 1_000)
  const { pace, refuse, sent } = paceOf(t, 10)
  refuse(10)
  t.ok(sent() < 10)
  pace.close()
  t.equal(sent(), 10)
  refuse(1)
  t.equal(sent(), 11, 'at once from then on')
})

t.test('at most 10,000 answers wait; further connections are to be closed', async (t) => {
  const { refuse, pace } = paceOf(t, 1)
  t.equal(refuse(10_000), true)
  t.equal(refuse(20_000), false)
  t.equal(pace.delayed(), 10_000)
})

t.test('a client that floods waits for its answers, and others do not', async (t) => {
  const app = await startApp(redis, { MAX_REFUSALS_PER_SECOND: '200' })
  t.teardown(() => app.http.close())
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.http.server.address() as AddressInfo
  const flood = await openRawClient(t, port)
  const startedAt = performance.now()
  flood.send(...Array.from({ length: 90 }, () => ({ path: '/no-such-path' })))
  await eventually(() => flood.responses().length > 0)
  const other = await openRawClient(t, port)
  other.send({ path: '/health/live' })
  await eventually(() => other.responses().length === 1)
  t.ok(flood.responses().length < 90, 'the flood still waits')
  await eventually(() => flood.responses().length === 90)
  t.ok(performance.now() - startedAt >= 300, 'until the rate allows it')
  t.ok((await app.http.inject('/stats')).json().connections.delayedRefusals > 0)
})
