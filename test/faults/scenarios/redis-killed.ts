/** D1: Redis is killed repeatedly under load, and restarts with what it had on disk. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { startClientGroups, threeGroups } from '../client-groups.ts'
import { killRedis, strike } from '../nemesis.ts'
import type { RedisOptions } from '../processes.ts'
import { type Control, type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'

export const redisKilled: Scenario = {
  id: 'D1',
  fault: 'SIGKILL of Redis under load, `appendfsync always`, restart; many times',
  run: (testbed, scale) => {
    const often: Killing = scale.isQuick
      ? { kills: 3, seconds: 5, restMs: [500, 900] }
      : { kills: 14, seconds: secondsOf(scale, 5, 0.09), restMs: [1_000, 2_000] }
    return killAgainAndAgain(testbed, scale, { fsync: 'always' }, often)
  },
  controls: [
    {
      what: 'a Redis that writes nothing to disk',
      misses: 'lost',
      run: (testbed, scale) => killAgainAndAgain(testbed, scale, {}, twice),
    },
    ...slowDisk(),
  ],
}

interface Killing {
  /** Minimum number of kills. */
  kills: number
  seconds: number
  /** Pause between kills. */
  restMs: [from: number, to: number]
}

/** After the second in which `everysec` starts to write, and before a slow disk has finished. */
const twice: Killing = { kills: 2, seconds: 0, restMs: [1_800, 2_200] }

async function killAgainAndAgain(
  testbed: Testbed,
  scale: Scale,
  options: RedisOptions,
  { kills, seconds, restMs }: Killing,
): Promise<Finding> {
  const redis = await testbed.redis(options)
  const service = await testbed.service(redis.url)
  const groups = startClientGroups(
    testbed,
    threeGroups(scale, () => service.url),
  )
  const startedAt = performance.now()
  const strikes = await strike({
    nemeses: [killRedis(redis)],
    restMs,
    holdMs: [0, 300],
    isEnough: (struck) => {
      scale.progress(`${struck} kills, ${groups.acknowledged()} jobs acknowledged`)
      return struck >= kills && performance.now() - startedAt > seconds * 1_000
    },
    mark: groups.mark,
  })
  const { checks, counts } = await groups.judge(redis)
  return { checks, counts: { ...counts, ...strikes } }
}

/**
 * `everysec` on a disk that takes three seconds per write: the loss that `/health/redis` warns of. A preloaded C library
 * slows down the disk, so this control needs a C compiler.
 */
function slowDisk(): Control[] {
  try {
    execFileSync('cc', ['--version'], { stdio: 'ignore' })
  } catch {
    return []
  }
  const slow = (testbed: Testbed): RedisOptions => {
    const library = join(testbed.dir, 'slow-disk.so')
    execFileSync('cc', ['-shared', '-fPIC', '-o', library, 'test/faults/slow-disk.c'])
    return { env: { LD_PRELOAD: library } }
  }
  return [
    {
      what: '`appendfsync everysec` on a slow disk',
      misses: 'lost',
      run: (testbed, scale) =>
        killAgainAndAgain(testbed, scale, { ...slow(testbed), fsync: 'everysec' }, twice),
    },
  ]
}
