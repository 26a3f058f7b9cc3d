/**
 * O1: five times what it can take, by the clock. The capacity is made small where it really is decided: Redis answers some
 * milliseconds late, and little may be under way at once. So the machine itself is never what is short.
 */
import { Queue } from 'bullmq'
import { check } from '../checker.ts'
import { type Browser, enqueue } from '../clients.ts'
import { countsOf, judgements } from '../crowd.ts'
import { drain } from '../drain.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { closedLoop, openLoop, type Running } from '../load.ts'
import { type Finding, judgeTimes, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'
import { act, type Deed, type Lease, type Told, take } from '../workers.ts'

const QUEUE = 'overload'
const TIMES = 5
const REDIS_DELAY_MS = 30
const BATCH = 4
const WAITING = 20
/** As many as settles come in four seconds, should the machine stand still for a moment. */
const SETTLES_WAITING = 100
/** Of a client; who is not answered by then counts as refused after that time. */
const PATIENCE_MS = 2_000

export const overload: Scenario = {
  id: 'O1',
  fault: 'five times what it can take, open loop',
  run: (stage, scale) => overrun(stage, scale, WAITING),
  controls: [
    {
      what: 'a service that lets as many wait as come',
      misses: 'refused after',
      run: (stage, scale) => overrun(stage, { ...scale, isQuick: true }, 1_000_000),
    },
  ],
}

/** O1 settles: so many queues that all of REDIS_MAX_WAITING is taken by enqueues, not only their own line. */
export const settlesOverloaded: Scenario = {
  id: 'O1 settles',
  fault: 'settles and extends, while so much is enqueued that it is shed',
  run: (stage, scale) => settleMeanwhile(stage, scale, settleOrExtend),
  controls: [
    {
      what: 'listings in the place of settles',
      misses: 'settles and extends not answered 200',
      run: (stage, scale) => settleMeanwhile(stage, { ...scale, isQuick: true }, list),
    },
  ],
}

async function overrun(stage: Stage, scale: Scale, mayWait: number): Promise<Finding> {
  const redis = await stage.redis()
  const proxy = await stage.proxy(redis.place)
  const service = await stage.service(`redis://127.0.0.1:${proxy.port}`, {
    REDIS_MAX_CONCURRENT_OPS: '4',
    REDIS_MAX_WAITING: `${mayWait}`,
    ENQUEUE_BATCH_MAX: `${BATCH}`,
    ENQUEUE_BATCHES_IN_FLIGHT: '1',
    ENQUEUE_MAX_WAITING: `${mayWait}`,
  })
  const browser = stage.browser()
  const history = createHistory(QUEUE)
  const options = { browser, history, queue: QUEUE, keys: 'none', retries: false } as const
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

  await during('warm-up', 1, closedLoop(stage, BATCH + WAITING, one))
  proxy.faults.delayMs = REDIS_DELAY_MS
  const seconds = secondsOf(scale, 3, 0.03)
  const afterS = scale.isQuick ? 3 : 7
  // As many as fit without a refusal: what is under way, and what may wait behind it.
  const peak = await during('as fast as it answers', seconds, closedLoop(stage, BATCH + WAITING, one))
  const capacity = taken(peak.tries) / seconds
  const five = await during(`${TIMES} times that`, seconds, openLoop(stage, TIMES * capacity, one))
  const after = await during('and after', afterS, openLoop(stage, capacity / 2, one))
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
        what: 'jobs taken, against the most it can',
        measured: taken(five.tries) / seconds / capacity,
        // Other work hits one part of the run and not the other.
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
      ...judgements([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      'jobs/s at most': Math.round(capacity),
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
  browser: Browser
  url: string
  leases: Lease[]
}

/** Every other one is settled; the rest is kept. */
function settleOrExtend({ browser, url, leases }: Meanwhile, index: number): Promise<Told> {
  const deed: Deed = index % 2 === 0 ? { kind: 'complete', result: index } : { kind: 'extend' }
  return act(browser, url, leases[index]!.lease, deed)
}

async function list({ browser, url }: Meanwhile): Promise<Told> {
  const { status, body } = await browser.ask(`${url}/jobs?queue=${QUEUE}`)
  return { status, code: body.slice(0, 200) }
}

async function settleMeanwhile(stage: Stage, scale: Scale, work: typeof settleOrExtend): Promise<Finding> {
  const redis = await stage.redis()
  const proxy = await stage.proxy(redis.place)
  const { url } = await stage.service(`redis://127.0.0.1:${proxy.port}`, {
    REDIS_MAX_CONCURRENT_OPS: '4',
    REDIS_MAX_WAITING: `${SETTLES_WAITING}`,
    ENQUEUE_BATCHES_IN_FLIGHT: '1',
  })
  const browser = stage.browser()
  const seconds = secondsOf(scale, 3, 0.02)
  const jobs = Array.from({ length: SETTLES_PER_S * (seconds + 5) }, () => ({ name: 'n', data: {} }))
  await new Queue(QUEUE, { connection: redis.client }).addBulk(jobs)
  const leases: Lease[] = []
  while (leases.length < jobs.length) {
    leases.push(...(await take(browser, url, QUEUE, { max: 100, leaseMs: 600_000 })))
  }
  proxy.faults.delayMs = REDIS_DELAY_MS
  const statuses: number[] = []
  const enqueueing = openLoop(
    stage,
    ((scale.isQuick ? 2 : TIMES) * 4 * 1_000) / REDIS_DELAY_MS,
    async (index) => {
      const body = JSON.stringify({ queue: `${QUEUE}-${index % QUEUES}`, name: 'n' })
      statuses.push((await browser.ask(`${url}/jobs`, { body, timeoutMs: PATIENCE_MS })).status)
    },
  )
  await until('enqueues are refused', () => statuses.includes(503))
  scale.progress('settling')
  const told: (Told & { ms: number })[] = []
  const settling = openLoop(stage, SETTLES_PER_S, async (index) => {
    const at = performance.now()
    const one = await work({ browser, url, leases }, index)
    told.push({ ...one, ms: performance.now() - at })
  })
  await sleep(seconds * 1_000)
  await settling.stop()
  await enqueueing.stop()
  const refused = told.filter(({ status }) => status !== 200)
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
        'settles and extends answered after',
        told.map(({ ms }) => ms),
        // One round trip under way may have to end first.
        5 * REDIS_DELAY_MS,
      ),
      {
        what: 'enqueues refused',
        measured: statuses.filter((status) => status === 503).length,
        atLeast: 100,
      },
    ],
    counts: { 'settles and extends': told.length, completed, enqueues: statuses.length },
  }
}
