/** A1, A2: Redis goes down under load, and comes back. */
import { check } from '../checker.ts'
import { countsOf, toChecks } from '../client-groups.ts'
import { enqueue } from '../clients.ts'
import { drain } from '../drain.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { RedisServer, Service } from '../processes.ts'
import { type Finding, judgeTimes, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const QUEUE = 'away'
const RATE_PER_S = 300
const QUICK_PER_S = 100
/** The timeout of a client. */
const TIMEOUT_MS = 2_000
/** From the first PONG to the first accepted job. */
const BACK_MS = 1_500

export const redisDown: Scenario = {
  id: 'A1',
  fault: 'Redis down under load',
  async run(testbed, scale) {
    const redis = await testbed.redis({ fsync: 'no' })
    const service = await testbed.service(redis.url)
    return measureOutage(testbed, scale, redis, service)
  },
  controls: [
    {
      what: 'a service that lets jobs wait for Redis, as BullMQ does',
      misses: 'response time of writes',
      async run(testbed, scale) {
        const redis = await testbed.redis({ fsync: 'no' })
        const naive = await testbed.otherService('test/faults/naive-service.ts', redis.url)
        return measureOutage(testbed, { ...scale, isQuick: true }, redis, naive)
      },
    },
  ],
}

async function measureOutage(
  testbed: Testbed,
  scale: Scale,
  redis: RedisServer,
  service: Service,
): Promise<Finding> {
  const { history, load } = startLoad(testbed, scale, service.url)
  // Warms up, so that compilation and heap growth at this rate do not count.
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
      judgeTimes(scale, 'response time of writes', times, 100),
      { what: 'memory grown, MB', measured: most - before, atMost: 20 },
      { what: 'refused without Retry-After', measured: whileAway.filter(lacksRetryAfter).length, atMost: 0 },
      ...toChecks([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      's of outage': Math.round(seconds),
      'responses during the outage': times.length,
    },
  }
}

function lacksRetryAfter({ status, hasRetryAfter }: Try): boolean {
  return status === 503 && !hasRetryAfter
}

export const redisBack: Scenario = {
  id: 'A2',
  fault: 'Redis back after an outage',
  async run(testbed, scale) {
    const redis = await testbed.redis()
    const service = await testbed.service(redis.url)
    const longest = scale.isQuick ? 1_500 : 12_000
    return measureRecovery(testbed, scale, redis, service, { awayMs: [300, 1_000, longest] })
  },
  controls: [
    {
      what: 'the network to Redis recovers three seconds after Redis does',
      misses: 'first 201 after the first PONG',
      async run(testbed, scale) {
        const redis = await testbed.redis()
        const proxy = await testbed.proxy(redis.place)
        const service = await testbed.service(`redis://127.0.0.1:${proxy.port}`)
        const onAway = () => {
          proxy.faults.refuse = true
        }
        const onBack = () => {
          // Fires before the scenario ends.
          setTimeout(() => {
            proxy.faults.refuse = false
          }, 2 * BACK_MS)
        }
        return measureRecovery(testbed, scale, redis, service, { awayMs: [300], onAway, onBack })
      },
    },
  ],
}

interface Outages {
  awayMs: number[]
  onAway?(): void
  onBack?(): void
}

async function measureRecovery(
  testbed: Testbed,
  scale: Scale,
  redis: RedisServer,
  service: Service,
  { awayMs, onAway, onBack }: Outages,
): Promise<Finding> {
  const { history, load } = startLoad(testbed, scale, service.url)
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
    scale.progress(`${took.length} recoveries`)
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
    counts: { recoveries: took.length, jobs: history.operations.length },
  }
}

function startLoad(testbed: Testbed, { isQuick }: Scale, url: string) {
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const load = openLoop(testbed, isQuick ? QUICK_PER_S : RATE_PER_S, (client) =>
    enqueue(
      {
        ...{ httpClient, history, queue: QUEUE, keys: 'none', retries: false },
        choose: () => url,
        timeoutMs: TIMEOUT_MS,
      },
      client,
    ),
  )
  return { history, load }
}
