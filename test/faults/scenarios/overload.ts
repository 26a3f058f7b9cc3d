/**
 * O1: an open loop at five times the capacity. Capacity is limited where it is limited in production, by Redis latency and
 * the number of operations in flight, so that the machine itself is never the bottleneck.
 */
import { Queue } from 'bullmq'
import { check } from '../checker.ts'
import { countsOf, toChecks } from '../client-groups.ts'
import { enqueue, type HttpClient } from '../clients.ts'
import { drain } from '../drain.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { closedLoop, openLoop, type Running } from '../load.ts'
import { type Finding, judgeTimes, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'
import { type Lease, type LeaseAction, type LeaseResult, sendLeaseAction, take } from '../workers.ts'

const QUEUE = 'overload'
const TIMES = 5
const REDIS_DELAY_MS = 30
const BATCH = 4
const WAITING = 20
/** The settles of four seconds, in case the machine stalls for a moment. */
const SETTLES_WAITING = 100
/** The timeout of a client; a request without a response counts as refused after this time. */
const PATIENCE_MS = 2_000

export const overload: Scenario = {
  id: 'O1',
  fault: 'five times the capacity, open loop',
  run: (testbed, scale) => overrun(testbed, scale, WAITING),
  controls: [
    {
      what: 'a service without limits on waiting requests',
      misses: 'refused after',
      run: (testbed, scale) => overrun(testbed, { ...scale, isQuick: true }, 1_000_000),
    },
  ],
}

/** O1 settles: enqueues on so many queues that they fill REDIS_MAX_WAITING, not only the limit of a queue. */
export const overloadSettles: Scenario = {
  id: 'O1 settles',
  fault: 'settles and extends while enqueues are shed',
  run: (testbed, scale) => settleMeanwhile(testbed, scale, settleOrExtend),
  controls: [
    {
      what: 'listings instead of settles',
      misses: 'settles and extends not answered 200',
      run: (testbed, scale) => settleMeanwhile(testbed, { ...scale, isQuick: true }, list),
    },
  ],
}

async function overrun(testbed: Testbed, scale: Scale, mayWait: number): Promise<Finding> {
  const redis = await testbed.redis()
  const proxy = await testbed.proxy(redis.place)
  const service = await testbed.service(`redis://127.0.0.1:${proxy.port}`, {
    REDIS_MAX_CONCURRENT_OPS: '4',
    REDIS_MAX_WAITING: `${mayWait}`,
    ENQUEUE_BATCH_MAX: `${BATCH}`,
    ENQUEUE_BATCHES_IN_FLIGHT: '1',
    ENQUEUE_MAX_WAITING: `${mayWait}`,
  })
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const options = { httpClient, history, queue: QUEUE, keys: 'none', retries: false } as const
  const one = (client: number) =>
    enqueue({ ...options, choose: () => service.url, timeoutMs: PATIENCE_MS }, client)
  const during = async (what: string, seconds: number, load: Running) => {
    scale.progress(what)
    const from = performance.now()
    await sleep(seconds * 1_000)
    const to = performance.now()
    await load.stop()
    return { from, to, tries: triesOf(history).filter(({ at }) => at >= from && at < to) }
  }

  await during('warm-up', 1, closedLoop(testbed, BATCH + WAITING, one))
  proxy.faults.delayMs = REDIS_DELAY_MS
  const seconds = secondsOf(scale, 3, 0.03)
  const afterS = scale.isQuick ? 3 : 7
  // As many clients as fit without a refusal: the operations in flight, and those that may wait.
  const peak = await during('as fast as it answers', seconds, closedLoop(testbed, BATCH + WAITING, one))
  const capacity = taken(peak.tries) / seconds
  const five = await during(`${TIMES} times that`, seconds, openLoop(testbed, TIMES * capacity, one))
  const after = await during('and after', afterS, openLoop(testbed, capacity / 2, one))
  const refused = five.tries.filter(({ outcome }) => outcome !== 'ok')
  const refusedMs = refused.map(({ ms }) => ms)
  const lastHurt = Math.max(
    five.to,
    ...after.tries.filter(({ outcome }) => outcome !== 'ok').map(({ at }) => at),
  )
  const seen = await drain(redis, [QUEUE])
  const verdict = check(history, seen)
  return {
    checks: [
      {
        what: 'accepted jobs, relative to capacity',
        measured: taken(five.tries) / seconds / capacity,
        // Other load on the machine may affect only one phase.
        atLeast: scale.isQuick ? 0.5 : 0.9,
      },
      { what: 'refused', measured: refused.length, atLeast: 1 },
      judgeTimes(scale, 'refused after', refusedMs, 10),
      {
        what: 'refused without Retry-After',
        measured: refused.filter(({ hasRetryAfter }) => !hasRetryAfter).length,
        atMost: 0,
      },
      {
        what: 'the last refusal after the overload, s',
        measured: (lastHurt - five.to) / 1_000,
        atMost: afterS - 2,
      },
      ...toChecks([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      'jobs/s capacity': Math.round(capacity),
      'offered/s': Math.round(five.tries.length / seconds),
    },
  }
}

function taken(tries: Try[]): number {
  return tries.filter(({ outcome }) => outcome === 'ok').length
}

const QUEUES = 200
const SETTLES_PER_S = 25

interface Meanwhile {
  httpClient: HttpClient
  url: string
  leases: Lease[]
}

/** Settles every other lease and extends the rest. */
function settleOrExtend({ httpClient, url, leases }: Meanwhile, index: number): Promise<LeaseResult> {
  const action: LeaseAction = index % 2 === 0 ? { kind: 'complete', result: index } : { kind: 'extend' }
  return sendLeaseAction(httpClient, url, leases[index]!.lease, action)
}

async function list({ httpClient, url }: Meanwhile): Promise<LeaseResult> {
  const { status, body } = await httpClient.ask(`${url}/jobs?queue=${QUEUE}`)
  return { status, code: body.slice(0, 200) }
}

async function settleMeanwhile(
  testbed: Testbed,
  scale: Scale,
  work: typeof settleOrExtend,
): Promise<Finding> {
  const redis = await testbed.redis()
  const proxy = await testbed.proxy(redis.place)
  const { url } = await testbed.service(`redis://127.0.0.1:${proxy.port}`, {
    REDIS_MAX_CONCURRENT_OPS: '4',
    REDIS_MAX_WAITING: `${SETTLES_WAITING}`,
    ENQUEUE_BATCHES_IN_FLIGHT: '1',
  })
  const httpClient = testbed.httpClient()
  const seconds = secondsOf(scale, 3, 0.02)
  const jobs = Array.from({ length: SETTLES_PER_S * (seconds + 5) }, () => ({ name: 'n', data: {} }))
  await new Queue(QUEUE, { connection: redis.client }).addBulk(jobs)
  const leases: Lease[] = []
  while (leases.length < jobs.length) {
    leases.push(...(await take(httpClient, url, QUEUE, { max: 100, leaseMs: 600_000 })))
  }
  proxy.faults.delayMs = REDIS_DELAY_MS
  const statuses: number[] = []
  const enqueueing = openLoop(
    testbed,
    ((scale.isQuick ? 2 : TIMES) * 4 * 1_000) / REDIS_DELAY_MS,
    async (index) => {
      const body = JSON.stringify({ queue: `${QUEUE}-${index % QUEUES}`, name: 'n' })
      statuses.push((await httpClient.ask(`${url}/jobs`, { body, timeoutMs: PATIENCE_MS })).status)
    },
  )
  await until('enqueues are refused', () => statuses.includes(503))
  scale.progress('settling')
  const result: (LeaseResult & { ms: number })[] = []
  const settling = openLoop(testbed, SETTLES_PER_S, async (index) => {
    const at = performance.now()
    const one = await work({ httpClient, url, leases }, index)
    result.push({ ...one, ms: performance.now() - at })
  })
  await sleep(seconds * 1_000)
  await settling.stop()
  await enqueueing.stop()
  const refused = result.filter(({ status }) => status !== 200)
  const completed = await new Queue(QUEUE, { connection: redis.client }).getCompletedCount()
  return {
    checks: [
      {
        what: 'settles and extends not answered 200',
        measured: refused.length,
        atMost: 0,
        samples: refused.slice(0, 3).map((one) => JSON.stringify(one)),
      },
      judgeTimes(
        scale,
        'response time of settles and extends',
        result.map(({ ms }) => ms),
        // A round trip in flight may have to end first.
        5 * REDIS_DELAY_MS,
      ),
      {
        what: 'enqueues refused',
        measured: statuses.filter((status) => status === 503).length,
        atLeast: 100,
      },
    ],
    counts: { 'settles and extends': result.length, completed, enqueues: statuses.length },
  }
}
