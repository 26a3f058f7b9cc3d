/** D2: one of two replicas is killed, or stands still, and its clients go on at the other. */
import { type Kind, startCrowd, threeKinds } from '../crowd.ts'
import { freezeService, killService, type Nemesis, strike } from '../nemesis.ts'
import type { Service } from '../processes.ts'
import { type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'

/** Clients wait this long for an answer: shorter than a replica stands still. */
const TIMEOUT_MS = 700

export const serviceKilled: Scenario = {
  id: 'D2',
  fault: 'SIGKILL and SIGSTOP of the service; two replicas, clients repeat at the other one',
  run: (stage, scale) =>
    harm(stage, scale, {
      kinds: (choose) => threeKinds(scale, choose, TIMEOUT_MS),
      nemeses: ([a, b]) => [killService(a), freezeService(b), killService(b), freezeService(a)],
      seconds: secondsOf(scale, 4, 0.1),
      strikes: scale.isQuick ? 4 : 14,
    }),
  controls: [
    {
      what: 'clients that repeat without a key',
      misses: 'duplicated',
      run: (stage, scale) =>
        harm(stage, scale, {
          kinds: (choose) => [{ keys: 'none', retries: true, clients: 8, choose, timeoutMs: TIMEOUT_MS }],
          nemeses: ([a, b]) => [freezeService(a), freezeService(b)],
          seconds: 0,
          strikes: 2,
        }),
    },
  ],
}

interface Harm {
  kinds(choose: Kind['choose']): Kind[]
  nemeses(replicas: [Service, Service]): Nemesis[]
  seconds: number
  strikes: number
}

async function harm(
  stage: Stage,
  scale: Scale,
  { kinds, nemeses, seconds, strikes }: Harm,
): Promise<Finding> {
  const redis = await stage.redis()
  const replicas: [Service, Service] = [await stage.service(redis.url), await stage.service(redis.url)]
  const crowd = startCrowd(
    stage,
    kinds((client, tries) => replicas[(client + tries) % 2]!.url),
  )
  const began = performance.now()
  const struck = await strike({
    nemeses: nemeses(replicas),
    restMs: scale.isQuick ? [200, 500] : [300, 1_000],
    holdMs: [TIMEOUT_MS + 300, TIMEOUT_MS + 500],
    isEnough: (count) => {
      scale.progress(`${count} kills and stops, ${crowd.acknowledged()} jobs acknowledged`)
      return count >= strikes && performance.now() - began > seconds * 1_000
    },
    mark: crowd.mark,
  })
  const { checks, counts } = await crowd.judge(redis)
  return { checks, counts: { ...counts, ...struck } }
}
