/**
 * A replica whose clock is wrong by an hour, or is stepped while it works: due times, leases and stored times follow Redis.
 * The clock is that of this process, so each test has a process-wide effect and restores it.
 */
import t, { type Test } from 'tap'
import { eventually } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { openWork, post, settle, take } from './client.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const HOUR_MS = 3_600_000
const machineNow = Date.now

/** Steps the machine's clock, as BullMQ and this service see it, for the rest of the test. */
function stepClock(t: Test, ms: number): void {
  Date.now = () => machineNow() + ms
  t.teardown(() => {
    Date.now = machineNow
  })
}

for (const [name, stepMs] of [
  ['an hour ahead', HOUR_MS],
  ['an hour behind', -HOUR_MS],
] as const) {
  t.test(`with a clock ${name}, a job is stored, leased and finished at Redis' time`, async (t) => {
    stepClock(t, stepMs)
    const { app, queue } = await openWork(t, redis)
    const startedMs = machineNow()
    const added = await post(app, '/jobs', { queue: 'q', name: 'n' })
    const { body } = await take(app, { leaseMs: 20_000 })
    t.equal(body.jobs[0].id, added.body.id)
    const expiresMs = Date.parse(body.jobs[0].expiresAt)
    t.ok(Math.abs(expiresMs - startedMs - 20_000) < 5_000, body.jobs[0].expiresAt)
    const extended = await post(app, '/leases/extend', {
      items: [{ lease: body.jobs[0].lease, leaseMs: 30_000 }],
    })
    const extendedMs = Date.parse(extended.body.results[0].expiresAt)
    t.ok(Math.abs(extendedMs - startedMs - 30_000) < 5_000)
    await settle(app, [{ lease: body.jobs[0].lease, outcome: 'complete' }])
    const [job] = await queue.getJobs(['completed'])
    for (const ms of [job!.timestamp, job!.processedOn!, job!.finishedOn!])
      t.ok(Math.abs(ms - startedMs) < 5_000, new Date(ms).toISOString())
  })

  t.test(`with a clock ${name}, a delayed job and a retry are due neither early nor late`, async (t) => {
    stepClock(t, stepMs)
    const { app } = await openWork(t, redis)
    await post(app, '/jobs', { queue: 'q', name: 'n', opts: { delay: 1_000, attempts: 2 } })
    t.equal((await take(app)).status, 204, 'not early')
    const first = await take(app, { wait: 5 })
    t.equal(first.status, 200, 'not late')
    await settle(app, [{ lease: first.body.jobs[0].lease, outcome: 'retry', delay: 1_000 }])
    t.equal((await take(app)).status, 204, 'not early')
    t.equal((await take(app, { wait: 5 })).status, 200, 'not late')
  })
}

for (const stepMs of [HOUR_MS, -HOUR_MS]) {
  t.test(`a step of ${stepMs / HOUR_MS} hours changes no lease and no due time`, async (t) => {
    const { app, queue } = await openWork(t, redis)
    await post(app, '/jobs', { queue: 'q', name: 'leased' })
    const { body } = await take(app, { leaseMs: 1_500 })
    await post(app, '/jobs', { queue: 'q', name: 'delayed', opts: { delay: 1_000 } })
    stepClock(t, stepMs)
    t.equal((await take(app)).status, 204, 'neither the lease nor the delay has ended')
    const later = await take(app, { wait: 5 })
    t.match(later.body.jobs, [{ name: 'delayed' }])
    await settle(app, [{ lease: later.body.jobs[0].lease, outcome: 'complete' }])
    // The worker of the first job is gone: the job stalls and comes back.
    await eventually(async () => (await queue.getWaitingCount()) === 1)
    t.match((await take(app, { wait: 5 })).body.jobs, [{ id: body.jobs[0].id }])
  })
}
