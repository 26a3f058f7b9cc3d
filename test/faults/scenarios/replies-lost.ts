/** D3: the network between the service and Redis, and between clients and the service, loses answers. */
import { type Crowd, type Kind, startCrowd, threeKinds } from '../crowd.ts'
import { triesOf } from '../history.ts'
import { halfOpen, strike } from '../nemesis.ts'
import type { RedisServer } from '../processes.ts'
import type { TcpProxy } from '../proxy.ts'
import { type Check, type Finding, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'

/** The time in which the service gives up a connection that died without a word. */
const TIMEOUT_MS = 500

export const repliesLost: Scenario = {
  id: 'D3',
  fault: 'a TCP proxy loses 1 % of replies with their connection, resets in mid-reply, goes half open',
  async run(stage, scale) {
    const { redis, toRedis, toService, url } = await open(stage)
    const direct = () => url
    const lossy = () => `http://127.0.0.1:${toService.port}`
    // Who takes one answer for the last asks directly: what he is told of the outcome is the service's own word.
    const kinds = threeKinds(scale, lossy, 3_000).map((kind) =>
      kind.retries ? kind : { ...kind, choose: direct },
    )
    const crowd = startCrowd(stage, kinds)
    hurt(toRedis)
    hurt(toService)
    const seconds = secondsOf(scale, 5, 0.08)
    const began = performance.now()
    const strikes = await strike({
      nemeses: [halfOpen(toRedis)],
      restMs: [800, 1_600],
      holdMs: [TIMEOUT_MS, TIMEOUT_MS],
      isEnough: (struck) => {
        scale.progress(`${toRedis.hurt.length} connections hurt, ${crowd.acknowledged()} jobs acknowledged`)
        return struck >= 2 && performance.now() - began > seconds * 1_000
      },
      mark: crowd.mark,
    })
    heal(toRedis)
    heal(toService)
    const { checks, counts } = await crowd.judge(redis)
    const lostReplies = { 'replies lost': toRedis.hurt.length + toService.hurt.length }
    return {
      checks: [...checks, ...knownUnknowns(crowd, toRedis)],
      counts: { ...counts, ...strikes, ...lostReplies },
    }
  },
  controls: [
    {
      what: 'clients that repeat without a key',
      misses: 'duplicated',
      async run(stage) {
        const { redis, toService } = await open(stage)
        const choose = () => `http://127.0.0.1:${toService.port}`
        const kind: Kind = { keys: 'none', retries: true, clients: 8, choose }
        return untilLost(stage, redis, toService, { kind, enough: 20 })
      },
    },
    {
      what: 'a service that hands jobs to BullMQ as they come, and clients that ask once',
      misses: 'duplicated',
      async run(stage) {
        const redis = await stage.redis()
        const toRedis = await stage.proxy(redis.place)
        const naive = await stage.other('test/faults/naive-service.ts', `redis://127.0.0.1:${toRedis.port}`)
        const kind: Kind = { keys: 'none', retries: false, clients: 8, choose: () => naive.url }
        // Few, as it takes BullMQ a second and more to come back from each.
        return untilLost(stage, redis, toRedis, { kind, enough: 5 })
      },
    },
    {
      what: 'a Redis that loses nothing, and answers after the service has given up',
      misses: 'called unknown though no reply was lost',
      async run(stage) {
        const { redis, toRedis, url } = await open(stage)
        const crowd = startCrowd(stage, [{ keys: 'none', retries: false, clients: 8, choose: () => url }])
        toRedis.faults.delayMs = 1.5 * TIMEOUT_MS
        await sleep(3 * TIMEOUT_MS)
        toRedis.faults.delayMs = 0
        const { checks, counts } = await crowd.judge(redis)
        return { checks: [...checks, ...knownUnknowns(crowd, toRedis)], counts }
      },
    },
  ],
}

async function open(stage: Stage) {
  const redis = await stage.redis()
  const toRedis = await stage.proxy(redis.place)
  const service = await stage.service(`redis://127.0.0.1:${toRedis.port}`, {
    REDIS_COMMAND_TIMEOUT: `${TIMEOUT_MS}`,
  })
  const toService = await stage.proxy({ port: Number(new URL(service.url).port) })
  return { redis, toRedis, toService, url: service.url }
}

function hurt({ faults }: TcpProxy): void {
  faults.loseShare = 0.01
  faults.cutShare = 0.005
}

function heal({ faults }: TcpProxy): void {
  faults.loseShare = 0
  faults.cutShare = 0
}

async function untilLost(
  stage: Stage,
  redis: RedisServer,
  proxy: TcpProxy,
  { kind, enough }: { kind: Kind; enough: number },
): Promise<Finding> {
  const crowd = startCrowd(stage, [kind])
  hurt(proxy)
  await until(`${enough} replies are lost`, () => proxy.hurt.length >= enough, 30_000)
  heal(proxy)
  return crowd.judge(redis)
}

/** Unknown only where it is unknown: while such a request was under way, a reply was lost. */
function knownUnknowns(crowd: Crowd, { hurt }: TcpProxy): Check[] {
  const unknown = crowd.histories
    .flatMap(triesOf)
    .filter(({ status, outcome }) => status === 503 && outcome === 'unknown')
  const isKnown = ({ at, ms }: { at: number; ms: number }) =>
    hurt.some(({ from, to }) => from <= at + ms && to >= at)
  return [
    {
      what: 'called unknown though no reply was lost',
      measured: unknown.filter((one) => !isKnown(one)).length,
      atMost: 0,
    },
    { what: 'called unknown', measured: unknown.length, atLeast: 1 },
  ]
}
