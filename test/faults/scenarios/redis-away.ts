/** A1, A2: Redis is gone under load, and comes back. */
import { check } from '../checker.ts'
import { enqueue } from '../clients.ts'
import { countsOf, judgements } from '../crowd.ts'
import { drain } from '../drain.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { RedisServer, Service } from '../processes.ts'
import { type Finding, judgeTimes, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'

const QUEUE = 'away'
const RATE_PER_S = 300
const QUICK_PER_S = 100
/** Of a client that is answered by nobody. */
const TIMEOUT_MS = 2_000
/** From the first PONG to the first job that is taken. */
const BACK_MS = 1_500

export const redisAway: Scenario = {
  id: 'A1',
  fault: 'Redis down under load',
  async run(stage, scale) {
    const redis = await stage.redis({ fsync: 'no' })
    const service = await stage.service(redis.url)
    return beAway(stage, scale, redis, service)
  },
  controls: [
    {
      what: 'a service that lets jobs wait for Redis, as BullMQ does',
      misses: 'writes answered after',
      async run(stage, scale) {
        const redis = await stage.redis({ fsync: 'no' })
        const naive = await stage.other('test/faults/naive-service.ts', redis.url)
        return beAway(stage, { ...scale, isQuick: true }, redis, naive)
      },
    },
  ],
}

async function beAway(stage: Stage, scale: Scale, redis: RedisServer, service: Service): Promise<Finding> {
  const { history, load } = startLoad(stage, scale, service.url)
  // What is compiled, and what the heap grows to at this rate, is not what is looked for.
  await sleep(scale.isQuick ? 2_500 : 10_000)
  const before = service.rssMb()
  const awayAt = performance.now()
  await redis.kill()
  let most = before
  const seconds = secondsOf(scale, 3, 0.06)
  while (performance.now() < awayAt + seconds * 1_000) {
    await sleep(250)
    most = Math.max(most, service.rssMb())
  }
  const backAt = performance.now()
  await redis.start()
  await until('jobs are taken again', () =>
    triesOf(history).some(({ at, outcome }) => at > backAt && outcome === 'ok'),
  )
  await load.stop()
  const whileAway = triesOf(history).filter(({ at }) => at > awayAt && at < backAt)
  const times = whileAway.map(({ ms }) => ms)
  const seen = await drain(redis, [QUEUE])
  const verdict = check(history, seen)
  return {
    checks: [
      judgeTimes(scale, 'writes answered after', times, 100),
      { what: 'memory grown, MB', measured: most - before, atMost: 20 },
      { what: 'refused without Retry-After', measured: whileAway.filter(isBare).length, atMost: 0 },
      ...judgements([verdict], seen, [history]),
    ],
    counts: { ...countsOf([verdict]), 's away': Math.round(seconds), 'answers while away': times.length },
  }
}

function isBare({ status, hasRetryAfter }: Try): boolean {
  return status === 503 && !hasRetryAfter
}

export const redisBack: Scenario = {
  id: 'A2',
  fault: 'Redis back after it was away',
  async run(stage, scale) {
    const redis = await stage.redis()
    const service = await stage.service(redis.url)
    const longest = scale.isQuick ? 1_500 : 12_000
    return comeBack(stage, scale, redis, service, { awayMs: [300, 1_000, longest] })
  },
  controls: [
    {
      what: 'the way to Redis opens three seconds after Redis does',
      misses: 'first 201 after the first PONG',
      async run(stage, scale) {
        const redis = await stage.redis()
        const proxy = await stage.proxy(redis.place)
        const service = await stage.service(`redis://127.0.0.1:${proxy.port}`)
        const onAway = () => {
          proxy.faults.refuse = true
        }
        const onBack = () => {
          // The scenario ends after that.
          setTimeout(() => {
            proxy.faults.refuse = false
          }, 2 * BACK_MS)
        }
        return comeBack(stage, scale, redis, service, { awayMs: [300], onAway, onBack })
      },
    },
  ],
}

interface Coming {
  awayMs: number[]
  onAway?(): void
  onBack?(): void
}

async function comeBack(
  stage: Stage,
  scale: Scale,
  redis: RedisServer,
  service: Service,
  { awayMs, onAway, onBack }: Coming,
): Promise<Finding> {
  const { history, load } = startLoad(stage, scale, service.url)
  await sleep(500)
  const took: number[] = []
  for (const ms of awayMs) {
    onAway?.()
    const goneAt = performance.now()
    await redis.kill()
    await sleep(ms)
    await redis.start()
    const pongAt = performance.now()
    onBack?.()
    const taken = () =>
      triesOf(history).find(({ at, outcome, ms }) => at > goneAt && at + ms > pongAt && outcome === 'ok')
    await until('jobs are taken again', () => taken() !== undefined)
    const { at, ms: answerMs } = taken()!
    took.push(at + answerMs - pongAt)
    scale.progress(`${took.length} times back`)
    await sleep(300)
  }
  await load.stop()
  const longest = Math.max(...took)
  return {
    checks: [
      {
        what: 'first 201 after the first PONG, ms',
        measured: longest,
        atMost: scale.isQuick ? 1.5 * BACK_MS : BACK_MS,
      },
    ],
    counts: { 'times back': took.length, jobs: history.operations.length },
  }
}

function startLoad(stage: Stage, { isQuick }: Scale, url: string) {
  const browser = stage.browser()
  const history = createHistory(QUEUE)
  const load = openLoop(stage, isQuick ? QUICK_PER_S : RATE_PER_S, (client) =>
    enqueue(
      {
        ...{ browser, history, queue: QUEUE, keys: 'none', retries: false },
        choose: () => url,
        timeoutMs: TIMEOUT_MS,
      },
      client,
    ),
  )
  return { history, load }
}
