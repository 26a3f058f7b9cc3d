/**
 * H1: webhook endpoints whose responses never end, each in its own way, beside fast endpoints; each has its own queue and
 * subscription. Slow endpoints are resubscribed continuously, because a failing one is paused, which would end the fault.
 */
import { Queue } from 'bullmq'
import { percentile } from '../checker.ts'
import type { HttpClient } from '../clients.ts'
import { PREFIX } from '../drain.ts'
import {
  type FastEndpoint,
  keepSubscribed,
  MUTE,
  maxConcurrent,
  type SlowEndpoint,
  startFastEndpoint,
  startSlowEndpoint,
  subscribe,
  ways,
} from '../endpoints.ts'
import { openLoop } from '../load.ts'
import type { RedisServer, Service } from '../processes.ts'
import { type Check, type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

/** Deadline of a whole delivery. */
const TIMEOUT_MS = 1_000
/** Allowed extra latency, p99. When they compete for delivery slots, half a deadline: waiting for a slow slot takes all of it. */
const LATER_MS = 150
const LATER_COMPETING_MS = 500
/** Allowed extra latency of the median, on a machine with other load. */
const QUICK_LATER_MS = 300
const MEMORY_MB = 100
const GOOD = ['good-0', 'good-1', 'good-2', 'good-3']
/** Concurrency of each slow endpoint. */
const CONCURRENCY = 10
/** WEBHOOK_MAX_IN_FLIGHT. */
const SLOTS = 1_000
/** So few slots that any slow endpoint could use them all. */
const competing = { slots: 40, concurrency: 40 }

export const slowEndpoints: Scenario = {
  id: 'H1',
  fault: 'webhook endpoints that respond slowly, never or endlessly, beside fast ones',
  run: (testbed, scale) => runSlowEndpoints(testbed, scale, {}),
  controls: [
    {
      what: 'a deadline for the headers alone',
      misses: 'attempts ended after',
      run: (testbed, scale) =>
        runSlowEndpoints(testbed, { ...scale, isQuick: true }, { bodyTimeoutMs: 60_000 }),
    },
    {
      what: 'one subscription for fast and slow deliveries',
      misses: 'extra latency of the others',
      run: (testbed, scale) => runSlowEndpoints(testbed, { ...scale, isQuick: true }, { isShared: true }),
    },
    {
      what: 'a service that reads responses of 16 MiB',
      misses: 'memory grown',
      run: (testbed, scale) => {
        const roomy = { maxResponse: 16_777_216, bodyTimeoutMs: 5_000, concurrency: 20 }
        return runSlowEndpoints(testbed, { ...scale, isQuick: true }, roomy)
      },
    },
  ],
}

export const slowEndpointsSlots: Scenario = {
  id: 'H1 slots',
  fault: 'the same, with each endpoint able to use all of WEBHOOK_MAX_IN_FLIGHT',
  run: (testbed, scale) => runSlowEndpoints(testbed, scale, competing),
  controls: [
    {
      what: 'a service without this limit',
      misses: 'concurrent deliveries to them',
      run: (testbed, scale) =>
        runSlowEndpoints(testbed, { ...scale, isQuick: true }, { ...competing, isBoundless: true }),
    },
  ],
}

interface SlowOptions {
  /** Expected limit of deliveries in flight: WEBHOOK_MAX_IN_FLIGHT, unless the control does not configure it. */
  slots?: number
  isBoundless?: boolean
  /** Concurrency of each slow endpoint. */
  concurrency?: number
  /** WEBHOOK_MAX_RESPONSE, bytes. */
  maxResponse?: number
  /** The deadline of endpoints that send complete headers. */
  bodyTimeoutMs?: number
  /** Instead of slow endpoints: jobs on the queues of the fast ones, to which these never respond. */
  isShared?: boolean
}

async function runSlowEndpoints(testbed: Testbed, scale: Scale, options: SlowOptions): Promise<Finding> {
  const { slots = SLOTS, isBoundless, concurrency = CONCURRENCY, isShared } = options
  const isCompeting = slots < SLOTS
  const { maxResponse = 262_144, bodyTimeoutMs = TIMEOUT_MS } = options
  const redis = await testbed.redis()
  const service = await testbed.service(redis.url, {
    WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8',
    WEBHOOK_MAX_IN_FLIGHT: `${isBoundless ? SLOTS : slots}`,
    WEBHOOK_MAX_RESPONSE: `${maxResponse}`,
  })
  const httpClient = testbed.httpClient()
  const good = await startFastEndpoint(testbed)
  for (const queue of GOOD)
    await subscribe(httpClient, service, queue, { url: good.url, timeoutMs: TIMEOUT_MS })
  const seconds = secondsOf(scale, 2, 0.03)
  const send = (name: string) => {
    scale.progress(name)
    return sendToFast(testbed, httpClient, service, name, scale.isQuick ? 40 : 100, seconds)
  }
  const warmUp = await send('warm-up')
  const without = await send('without-them')

  const bad = isShared ? [] : await startSlowEndpoints(testbed, scale.isQuick || isCompeting ? 1 : 2)
  for (const queue of isShared ? GOOD : bad.map(queueOf)) {
    const name = isShared ? MUTE : 'n'
    const jobs = Array.from({ length: concurrency * (seconds + 5) }, () => ({ name, data: {} }))
    await new Queue(queue, { connection: redis.client }).addBulk(jobs)
  }
  const subscriptions = bad.map((one, index) => ({
    ...{ queue: queueOf(one, index), url: one.url, concurrency },
    timeoutMs: one.hasHeaders ? bodyTimeoutMs : TIMEOUT_MS,
    // An endless body is cut off soon, so without a rate limit its endpoint would get all jobs at once.
    rateLimit: { max: concurrency, duration: TIMEOUT_MS },
  }))
  const memory = watchMemory(testbed, service)
  const subscribing = keepSubscribed(httpClient, service, subscriptions, TIMEOUT_MS)
  const beside = await send('beside-them')
  await subscribing.stop()
  await sleep(TIMEOUT_MS + 1_000)
  const sockets = bad.reduce((sum, one) => sum + one.sockets(), 0)

  const all = [...warmUp.keys(), ...without.keys(), ...beside.keys()]
  const notDone = async () => {
    const done = await completed(redis)
    return all.filter((id) => !done.has(id)).length
  }
  // Gives late jobs time; what is not done by then is lost, not late.
  const isDone = async () => (await notDone()) === 0
  await until('all jobs of the fast endpoints are done', isDone, 5_000, 100).catch(() => {})
  const share = scale.isQuick ? 0.5 : 0.99
  const [before, then] = [percentile(timesOf(good, without), share), percentile(timesOf(good, beside), share)]
  const attempts = bad.flatMap((one) => one.attempts)
  return {
    checks: [
      {
        what: `extra latency of the others, ${scale.isQuick ? 'p50' : 'p99'}, ms`,
        measured: then - before,
        // The bound grows with the baseline, for slow machines.
        atMost:
          Math.round(before) + (scale.isQuick ? QUICK_LATER_MS : isCompeting ? LATER_COMPETING_MS : LATER_MS),
      },
      { what: 'jobs of others not completed', measured: await notDone(), atMost: 0 },
      {
        what: 'jobs of others not sent exactly once',
        measured: all.filter((id) => good.arrivals.get(id)?.length !== 1).length,
        atMost: 0,
      },
      judgeAttempts(scale, bad),
      { what: 'concurrent deliveries to them, most', measured: maxConcurrent(attempts), atMost: slots },
      { what: 'memory grown, MB', measured: memory.grownMb(), atMost: MEMORY_MB },
      { what: 'sockets to them left open', measured: sockets, atMost: 0 },
    ],
    counts: {
      'slow endpoints': bad.length,
      'attempts at them': attempts.length,
      'jobs of others': all.length,
      'ms until delivery to the others (p50)': Math.round(percentile(timesOf(good, beside), 0.5)),
      'ms until delivery to the others (p99)': Math.round(percentile(timesOf(good, beside), 0.99)),
    },
  }
}

/** When each acknowledged job was sent, by its id. */
type Sent = Map<string, number>

async function sendToFast(
  testbed: Testbed,
  httpClient: HttpClient,
  service: Service,
  name: string,
  ratePerS: number,
  seconds: number,
): Promise<Sent> {
  const sent: Sent = new Map()
  const load = openLoop(testbed, ratePerS, async (index) => {
    const queue = GOOD[index % GOOD.length]!
    const jobId = `${name}-${index}`
    const at = performance.now()
    const body = JSON.stringify({ queue, name: 'n', opts: { jobId } })
    const { status } = await httpClient.ask(`${service.url}/jobs`, { body })
    if (status === 201) sent.set(`${queue}:${jobId}`, at)
  })
  await sleep(seconds * 1_000)
  await load.stop()
  return sent
}

/** Latency from the client to the endpoint, ms. */
function timesOf({ arrivals }: FastEndpoint, sent: Sent): number[] {
  return [...sent].map(([id, at]) => (arrivals.get(id)?.[0] ?? performance.now()) - at)
}

const queueOf = ({ way }: SlowEndpoint, index: number) => `${way.replaceAll(' ', '-')}-${index}`

function startSlowEndpoints(testbed: Testbed, ofEach: number): Promise<SlowEndpoint[]> {
  const all = Array.from({ length: ofEach }, () => ways).flat()
  return Promise.all(all.map((way) => startSlowEndpoint(testbed, way)))
}

function watchMemory(testbed: Testbed, service: Service) {
  const rssMb = service.rssMb()
  let peakMb = rssMb
  const looking = setInterval(() => {
    peakMb = Math.max(peakMb, service.rssMb())
  }, 50)
  testbed.onEnd(() => clearInterval(looking))
  return { grownMb: () => peakMb - rssMb }
}

async function completed({ client }: RedisServer): Promise<Set<string>> {
  const keys = await Promise.all(
    GOOD.map(async (queue) => {
      const ofQueue = await client.zrange(`${PREFIX}:${queue}:completed`, '0', '-1')
      return ofQueue.map((key) => `${queue}:${key}`)
    }),
  )
  return new Set(keys.flat())
}

/** Checks each kind separately, so that quick ones do not hide slow ones. */
function judgeAttempts({ isQuick }: Scale, bad: SlowEndpoint[]): Check {
  const lasting = ways.map((way) =>
    bad
      .filter((one) => one.way === way)
      .flatMap(({ attempts }) => attempts)
      .map(({ from, to }) => Math.min(to, performance.now()) - from),
  )
  return {
    what: `attempts ended after, ${isQuick ? 'p50' : 'most'}, ms`,
    measured: Math.max(...lasting.map((times) => (isQuick ? percentile(times, 0.5) : Math.max(...times)))),
    atMost: TIMEOUT_MS + 1_000,
  }
}
