/** D1: Redis is killed under load, again and again, and comes back with what it had on disk. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { startCrowd, threeKinds } from '../crowd.ts'
import { killRedis, strike } from '../nemesis.ts'
import type { RedisOptions } from '../processes.ts'
import { type Control, type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'

export const redisKilled: Scenario = {
  id: 'D1',
  fault: 'SIGKILL of Redis under load, `appendfsync always`, restart; many times',
  run: (stage, scale) => {
    const often: Killing = scale.isQuick
      ? { kills: 3, seconds: 5, restMs: [500, 900] }
      : { kills: 14, seconds: secondsOf(scale, 5, 0.09), restMs: [1_000, 2_000] }
    return killAgainAndAgain(stage, scale, { fsync: 'always' }, often)
  },
  controls: [
    {
      what: 'a Redis that writes nothing to disk',
      misses: 'lost',
      run: (stage, scale) => killAgainAndAgain(stage, scale, {}, twice),
    },
    ...slowDisk(),
  ],
}

interface Killing {
  /** At least. */
  kills: number
  seconds: number
  /** Between one and the next. */
  restMs: [from: number, to: number]
}

/** After the second in which `everysec` begins to write, and before a slow disk has done it. */
const twice: Killing = { kills: 2, seconds: 0, restMs: [1_800, 2_200] }

async function killAgainAndAgain(
  stage: Stage,
  scale: Scale,
  options: RedisOptions,
  { kills, seconds, restMs }: Killing,
): Promise<Finding> {
  const redis = await stage.redis(options)
  const service = await stage.service(redis.url)
  const crowd = startCrowd(
    stage,
    threeKinds(scale, () => service.url),
  )
  const began = performance.now()
  const strikes = await strike({
    nemeses: [killRedis(redis)],
    restMs,
    holdMs: [0, 300],
    isEnough: (struck) => {
      scale.progress(`${struck} kills, ${crowd.acknowledged()} jobs acknowledged`)
      return struck >= kills && performance.now() - began > seconds * 1_000
    },
    mark: crowd.mark,
  })
  const { checks, counts } = await crowd.judge(redis)
  return { checks, counts: { ...counts, ...strikes } }
}

/**
 * `everysec` on a disk that takes three seconds to write: the loss that `/health/redis` warns of. The disk is made slow by a
 * few lines of C before redis-server, so there is no such run where there is no C compiler.
 */
function slowDisk(): Control[] {
  try {
    execFileSync('cc', ['--version'], { stdio: 'ignore' })
  } catch {
    return []
  }
  const slow = (stage: Stage): RedisOptions => {
    const library = join(stage.dir, 'slow-disk.so')
    execFileSync('cc', ['-shared', '-fPIC', '-o', library, 'test/faults/slow-disk.c'])
    return { env: { LD_PRELOAD: library } }
  }
  return [
    {
      what: '`appendfsync everysec` on a slow disk',
      misses: 'lost',
      run: (stage, scale) => killAgainAndAgain(stage, scale, { ...slow(stage), fsync: 'everysec' }, twice),
    },
  ]
}
