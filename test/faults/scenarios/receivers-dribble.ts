/**
 * H1: receivers of webhooks that come to no end, each in its own way, beside others that answer at once; each has a queue and
 * a subscription. The bad are subscribed anew all the time: who has failed for a while is left alone, which spares the others.
 */
import { Queue } from 'bullmq'
import { percentile } from '../checker.ts'
import type { Browser } from '../clients.ts'
import { PREFIX } from '../drain.ts'
import { openLoop } from '../load.ts'
import type { RedisServer, Service } from '../processes.ts'
import {
  type BadReceiver,
  type GoodReceiver,
  MUTE,
  mostAtOnce,
  startBadReceiver,
  startGoodReceiver,
  subscribe,
  subscribeAgainAndAgain,
  ways,
} from '../receivers.ts'
import { type Check, type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'

/** For a whole delivery. */
const TIMEOUT_MS = 1_000
/** p99. Where they take places from the others it is half of a deadline: who has to wait for one of theirs waits for all of it. */
const LATER_MS = 150
const LATER_CROWDED_MS = 500
/** Of the median, where the machine does other things. */
const QUICK_LATER_MS = 300
const MEMORY_MB = 100
const GOOD = ['good-0', 'good-1', 'good-2', 'good-3']
/** Of each of the bad. */
const CONCURRENCY = 10
/** WEBHOOK_MAX_IN_FLIGHT. */
const PLACES = 1_000
/** So few that any one of the bad wants them all. */
const crowded = { places: 40, concurrency: 40 }

export const receiversDribble: Scenario = {
  id: 'H1',
  fault: 'webhook receivers that dribble, say nothing or have no end, beside others',
  run: (stage, scale) => dribble(stage, scale, {}),
  controls: [
    {
      what: 'a deadline for the headers alone',
      misses: 'attempts ended after',
      run: (stage, scale) => dribble(stage, { ...scale, isQuick: true }, { bodyTimeoutMs: 60_000 }),
    },
    {
      what: 'one subscription for the good and the bad',
      misses: 'others sent later',
      run: (stage, scale) => dribble(stage, { ...scale, isQuick: true }, { isShared: true }),
    },
    {
      what: 'a service that keeps answers of 16 MiB',
      misses: 'memory grown',
      run: (stage, scale) => {
        const roomy = { maxResponse: 16_777_216, bodyTimeoutMs: 5_000, concurrency: 20 }
        return dribble(stage, { ...scale, isQuick: true }, roomy)
      },
    },
  ],
}

export const receiversCrowd: Scenario = {
  id: 'H1 places',
  fault: 'the same, and each of them wants all of WEBHOOK_MAX_IN_FLIGHT',
  run: (stage, scale) => dribble(stage, scale, crowded),
  controls: [
    {
      what: 'a service that knows no such bound',
      misses: 'on their way to them at once',
      run: (stage, scale) => dribble(stage, { ...scale, isQuick: true }, { ...crowded, isBoundless: true }),
    },
  ],
}

interface Dribbling {
  /** Most that may be on their way at once: WEBHOOK_MAX_IN_FLIGHT, unless the service is not told of it. */
  places?: number
  isBoundless?: boolean
  /** Of each of the bad. */
  concurrency?: number
  /** WEBHOOK_MAX_RESPONSE, bytes. */
  maxResponse?: number
  /** Of those who dribble their bodies. */
  bodyTimeoutMs?: number
  /** Instead of bad receivers: jobs in the queues of the good ones, which do not answer them. */
  isShared?: boolean
}

async function dribble(stage: Stage, scale: Scale, dribbling: Dribbling): Promise<Finding> {
  const { places = PLACES, isBoundless, concurrency = CONCURRENCY, isShared } = dribbling
  const isCrowded = places < PLACES
  const { maxResponse = 262_144, bodyTimeoutMs = TIMEOUT_MS } = dribbling
  const redis = await stage.redis()
  const service = await stage.service(redis.url, {
    WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8',
    WEBHOOK_MAX_IN_FLIGHT: `${isBoundless ? PLACES : places}`,
    WEBHOOK_MAX_RESPONSE: `${maxResponse}`,
  })
  const browser = stage.browser()
  const good = await startGoodReceiver(stage)
  for (const queue of GOOD) await subscribe(browser, service, queue, { url: good.url, timeoutMs: TIMEOUT_MS })
  const seconds = secondsOf(scale, 2, 0.03)
  const send = (name: string) => {
    scale.progress(name)
    return sendToGood(stage, browser, service, name, scale.isQuick ? 40 : 100, seconds)
  }
  const warmUp = await send('warm-up')
  const without = await send('without-them')

  const bad = isShared ? [] : await startBad(stage, scale.isQuick || isCrowded ? 1 : 2)
  for (const queue of isShared ? GOOD : bad.map(queueOf)) {
    const name = isShared ? MUTE : 'n'
    const jobs = Array.from({ length: concurrency * (seconds + 5) }, () => ({ name, data: {} }))
    await new Queue(queue, { connection: redis.client }).addBulk(jobs)
  }
  const subscriptions = bad.map((one, index) => ({
    ...{ queue: queueOf(one, index), url: one.url, concurrency },
    timeoutMs: one.hasHeaders ? bodyTimeoutMs : TIMEOUT_MS,
    // One that has no end is cut off soon, and would be sent all its jobs at once.
    rateLimit: { max: concurrency, duration: TIMEOUT_MS },
  }))
  const memory = watchMemory(stage, service)
  const subscribing = subscribeAgainAndAgain(browser, service, subscriptions, TIMEOUT_MS)
  const beside = await send('beside-them')
  await subscribing.stop()
  await sleep(TIMEOUT_MS + 1_000)
  const sockets = bad.reduce((sum, one) => sum + one.sockets(), 0)

  const all = [...warmUp.keys(), ...without.keys(), ...beside.keys()]
  const notDone = async () => {
    const done = await completed(redis)
    return all.filter((id) => !done.has(id)).length
  }
  // Who was late has his time; what is not done by then is not late.
  const isDone = async () => (await notDone()) === 0
  await until('all jobs of the others are done', isDone, 5_000, 100).catch(() => {})
  const share = scale.isQuick ? 0.5 : 0.99
  const [before, then] = [percentile(timesOf(good, without), share), percentile(timesOf(good, beside), share)]
  const attempts = bad.flatMap((one) => one.attempts)
  return {
    checks: [
      {
        what: `others sent later, ${scale.isQuick ? 'p50' : 'p99'}, ms`,
        measured: then - before,
        // A machine on which it takes long without them makes it later by as much.
        atMost:
          Math.round(before) + (scale.isQuick ? QUICK_LATER_MS : isCrowded ? LATER_CROWDED_MS : LATER_MS),
      },
      { what: 'jobs of others not completed', measured: await notDone(), atMost: 0 },
      {
        what: 'jobs of others sent but once',
        measured: all.filter((id) => good.arrivals.get(id)?.length !== 1).length,
        atMost: 0,
      },
      judgeAttempts(scale, bad),
      { what: 'on their way to them at once, most', measured: mostAtOnce(attempts), atMost: places },
      { what: 'memory grown, MB', measured: memory.grownMb(), atMost: MEMORY_MB },
      { what: 'sockets to them left open', measured: sockets, atMost: 0 },
    ],
    counts: {
      'receivers that came to no end': bad.length,
      'attempts at them': attempts.length,
      'jobs of others': all.length,
      'ms until others are sent (p50)': Math.round(percentile(timesOf(good, beside), 0.5)),
      'ms until others are sent (p99)': Math.round(percentile(timesOf(good, beside), 0.99)),
    },
  }
}

/** When each job that was acknowledged had been handed in, by its id. */
type Sent = Map<string, number>

async function sendToGood(
  stage: Stage,
  browser: Browser,
  service: Service,
  name: string,
  ratePerS: number,
  seconds: number,
): Promise<Sent> {
  const sent: Sent = new Map()
  const load = openLoop(stage, ratePerS, async (index) => {
    const queue = GOOD[index % GOOD.length]!
    const jobId = `${name}-${index}`
    const at = performance.now()
    const body = JSON.stringify({ queue, name: 'n', opts: { jobId } })
    const { status } = await browser.ask(`${service.url}/jobs`, { body })
    if (status === 201) sent.set(`${queue}:${jobId}`, at)
  })
  await sleep(seconds * 1_000)
  await load.stop()
  return sent
}

/** From the client to the receiver, ms. */
function timesOf({ arrivals }: GoodReceiver, sent: Sent): number[] {
  return [...sent].map(([id, at]) => (arrivals.get(id)?.[0] ?? performance.now()) - at)
}

const queueOf = ({ way }: BadReceiver, index: number) => `${way.replaceAll(' ', '-')}-${index}`

function startBad(stage: Stage, ofEach: number): Promise<BadReceiver[]> {
  const all = Array.from({ length: ofEach }, () => ways).flat()
  return Promise.all(all.map((way) => startBadReceiver(stage, way)))
}

function watchMemory(stage: Stage, service: Service) {
  const rssMb = service.rssMb()
  let peakMb = rssMb
  const looking = setInterval(() => {
    peakMb = Math.max(peakMb, service.rssMb())
  }, 50)
  stage.onEnd(() => clearInterval(looking))
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

/** Each way for itself: those that end soon must not speak for the rest. */
function judgeAttempts({ isQuick }: Scale, bad: BadReceiver[]): Check {
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
