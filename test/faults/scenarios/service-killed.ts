/** D2: one of two replicas is killed or stopped, and its clients continue at the other. */
import { type ClientGroup, startClientGroups, threeGroups } from '../client-groups.ts'
import { freezeService, killService, type Nemesis, strike } from '../nemesis.ts'
import type { Service } from '../processes.ts'
import { type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'

/** Client timeout, shorter than a replica is stopped. */
const TIMEOUT_MS = 700

export const serviceKilled: Scenario = {
  id: 'D2',
  fault: 'SIGKILL and SIGSTOP of the service; two replicas, clients repeat at the other one',
  run: (testbed, scale) =>
    killAndStop(testbed, scale, {
      kinds: (choose) => threeGroups(scale, choose, TIMEOUT_MS),
      nemeses: ([a, b]) => [killService(a), freezeService(b), killService(b), freezeService(a)],
      seconds: secondsOf(scale, 4, 0.1),
      strikes: scale.isQuick ? 4 : 14,
    }),
  controls: [
    {
      what: 'clients that repeat without a key',
      misses: 'duplicated',
      run: (testbed, scale) =>
        killAndStop(testbed, scale, {
          kinds: (choose) => [{ keys: 'none', retries: true, clients: 8, choose, timeoutMs: TIMEOUT_MS }],
          nemeses: ([a, b]) => [freezeService(a), freezeService(b)],
          seconds: 0,
          strikes: 2,
        }),
    },
  ],
}

interface KillsAndStops {
  kinds(choose: ClientGroup['choose']): ClientGroup[]
  nemeses(replicas: [Service, Service]): Nemesis[]
  seconds: number
  strikes: number
}

async function killAndStop(
  testbed: Testbed,
  scale: Scale,
  { kinds, nemeses, seconds, strikes }: KillsAndStops,
): Promise<Finding> {
  const redis = await testbed.redis()
  const replicas: [Service, Service] = [await testbed.service(redis.url), await testbed.service(redis.url)]
  const groups = startClientGroups(
    testbed,
    kinds((client, tries) => replicas[(client + tries) % 2]!.url),
  )
  const startedAt = performance.now()
  const struck = await strike({
    nemeses: nemeses(replicas),
    restMs: scale.isQuick ? [200, 500] : [300, 1_000],
    holdMs: [TIMEOUT_MS + 300, TIMEOUT_MS + 500],
    isEnough: (count) => {
      scale.progress(`${count} kills and stops, ${groups.acknowledged()} jobs acknowledged`)
      return count >= strikes && performance.now() - startedAt > seconds * 1_000
    },
    mark: groups.mark,
  })
  const { checks, counts } = await groups.judge(redis)
  return { checks, counts: { ...counts, ...struck } }
}
