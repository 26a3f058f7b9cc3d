/** D3: the network loses replies between Redis and the service, and between the service and its clients. */
import { type ClientGroup, type ClientGroups, startClientGroups, threeGroups } from '../client-groups.ts'
import { triesOf } from '../history.ts'
import { halfOpen, strike } from '../nemesis.ts'
import type { RedisServer } from '../processes.ts'
import type { TcpProxy } from '../proxy.ts'
import { type Check, type Finding, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

/** When the service gives up a half-open connection, ms. */
const TIMEOUT_MS = 500

export const repliesLost: Scenario = {
  id: 'D3',
  fault:
    'a TCP proxy loses 1 % of replies with their connection, resets within replies, leaves connections half open',
  async run(testbed, scale) {
    const { redis, toRedis, toService, url } = await open(testbed)
    const direct = () => url
    const lossy = () => `http://127.0.0.1:${toService.port}`
    // Clients that never repeat connect directly, so that their outcomes come from the service itself.
    const kinds = threeGroups(scale, lossy, 3_000).map((kind) =>
      kind.retries ? kind : { ...kind, choose: direct },
    )
    const groups = startClientGroups(testbed, kinds)
    injectFaults(toRedis)
    injectFaults(toService)
    const seconds = secondsOf(scale, 5, 0.08)
    const startedAt = performance.now()
    const strikes = await strike({
      nemeses: [halfOpen(toRedis)],
      restMs: [800, 1_600],
      holdMs: [TIMEOUT_MS, TIMEOUT_MS],
      isEnough: (struck) => {
        scale.progress(
          `${toRedis.faultTimes.length} faults injected, ${groups.acknowledged()} jobs acknowledged`,
        )
        return struck >= 2 && performance.now() - startedAt > seconds * 1_000
      },
      mark: groups.mark,
    })
    clearFaults(toRedis)
    clearFaults(toService)
    const { checks, counts } = await groups.judge(redis)
    const lostReplies = { 'replies lost': toRedis.faultTimes.length + toService.faultTimes.length }
    return {
      checks: [...checks, ...knownUnknowns(groups, toRedis)],
      counts: { ...counts, ...strikes, ...lostReplies },
    }
  },
  controls: [
    {
      what: 'clients that repeat without a key',
      misses: 'duplicated',
      async run(testbed) {
        const { redis, toService } = await open(testbed)
        const choose = () => `http://127.0.0.1:${toService.port}`
        const kind: ClientGroup = { keys: 'none', retries: true, clients: 8, choose }
        return untilLost(testbed, redis, toService, { kind, enough: 20 })
      },
    },
    {
      what: 'a service that passes jobs straight to BullMQ, and clients that never repeat',
      misses: 'duplicated',
      async run(testbed) {
        const redis = await testbed.redis()
        const toRedis = await testbed.proxy(redis.place)
        const naive = await testbed.otherService(
          'test/faults/naive-service.ts',
          `redis://127.0.0.1:${toRedis.port}`,
        )
        const kind: ClientGroup = { keys: 'none', retries: false, clients: 8, choose: () => naive.url }
        // Few, because BullMQ needs more than a second to recover from each.
        return untilLost(testbed, redis, toRedis, { kind, enough: 5 })
      },
    },
    {
      what: 'a Redis that loses nothing, but responds after the service has given up',
      misses: 'reported as unknown although no reply was lost',
      async run(testbed) {
        const { redis, toRedis, url } = await open(testbed)
        const groups = startClientGroups(testbed, [
          { keys: 'none', retries: false, clients: 8, choose: () => url },
        ])
        toRedis.faults.delayMs = 1.5 * TIMEOUT_MS
        await sleep(3 * TIMEOUT_MS)
        toRedis.faults.delayMs = 0
        const { checks, counts } = await groups.judge(redis)
        return { checks: [...checks, ...knownUnknowns(groups, toRedis)], counts }
      },
    },
  ],
}

async function open(testbed: Testbed) {
  const redis = await testbed.redis()
  const toRedis = await testbed.proxy(redis.place)
  const service = await testbed.service(`redis://127.0.0.1:${toRedis.port}`, {
    REDIS_COMMAND_TIMEOUT: `${TIMEOUT_MS}`,
  })
  const toService = await testbed.proxy({ port: Number(new URL(service.url).port) })
  return { redis, toRedis, toService, url: service.url }
}

function injectFaults({ faults }: TcpProxy): void {
  faults.loseShare = 0.01
  faults.cutShare = 0.005
}

function clearFaults({ faults }: TcpProxy): void {
  faults.loseShare = 0
  faults.cutShare = 0
}

async function untilLost(
  testbed: Testbed,
  redis: RedisServer,
  proxy: TcpProxy,
  { kind, enough }: { kind: ClientGroup; enough: number },
): Promise<Finding> {
  const groups = startClientGroups(testbed, [kind])
  injectFaults(proxy)
  await until(`${enough} replies are lost`, () => proxy.faultTimes.length >= enough, 30_000)
  clearFaults(proxy)
  return groups.judge(redis)
}

/** An outcome may be `unknown` only if a reply was lost while the request was in flight. */
function knownUnknowns(groups: ClientGroups, { faultTimes }: TcpProxy): Check[] {
  const unknown = groups.histories
    .flatMap(triesOf)
    .filter(({ status, outcome }) => status === 503 && outcome === 'unknown')
  const isKnown = ({ at, ms }: { at: number; ms: number }) =>
    faultTimes.some(({ from, to }) => from <= at + ms && to >= at)
  return [
    {
      what: 'reported as unknown although no reply was lost',
      measured: unknown.filter((one) => !isKnown(one)).length,
      atMost: 0,
    },
    { what: 'reported as unknown', measured: unknown.length, atLeast: 1 },
  ]
}
