/** What a scenario consists of, the job that all scenarios use, and the comparison of targets. */
import { type Load, type Measure, measure, medianOf, startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'

export interface Goal {
  what: string
  measured: number
  /** The bound of `measured`; exactly one of the two is set. */
  atMost?: number
  atLeast?: number
}

export interface Outcome {
  rows: Measure[]
  goals: Goal[]
}

export interface Scenario {
  name: string
  shows: string
  run(effort: Effort): Promise<Outcome>
}

export interface Effort {
  rounds: number
  seconds: number
  /** One setting of each scenario and few clients: a smoke test. */
  isQuick: boolean
}

const WARM_UP_S = 2
const QUICK_REQUESTS = 500

/** The length of a round, as options of autocannon. */
function roundLength({ isQuick, seconds }: Effort): Partial<Load> {
  // autocannon checks only once per sample whether it has finished.
  return isQuick ? { amount: QUICK_REQUESTS, sampleInt: 50 } : { duration: seconds }
}

export const json = { 'content-type': 'application/json' }
export const job = {
  queue: 'load',
  name: 'welcome',
  data: { to: 'ann@example.com', template: 'welcome', locale: 'en', userId: 4711 },
}

/** A variant of a scenario: its name in the tables, and the load. */
export interface Setting {
  name: string
  load: Load
}

export interface Side {
  /** Its name in the tables; by default that of the target. */
  label?: string
  target: string
  /** Environment of the target; called when the sides before it are ready. */
  env?(): Record<string, string>
  /**
   * Fills its Redis, which is then not flushed between rounds. The returned options override the setting's
   * load.
   */
  prepare?(redis: PrivateRedis, target: Target): Promise<Partial<Load>>
}

/**
 * Each side has its own Redis. For each setting there is a warm-up, then the sides take turns, so that noise
 * on the machine affects all alike.
 */
export async function compare(
  scenario: string,
  sides: (Side | string)[],
  settings: Setting[],
  effort: Effort,
): Promise<Comparison> {
  const open: {
    label: string
    target: Target
    redis: PrivateRedis
    own: Partial<Load>
    isFilled: boolean
  }[] = []
  const rows: Measure[] = []
  try {
    for (const side of sides.map((one) => (typeof one === 'string' ? { target: one } : one))) {
      const { target: name, label = name, env, prepare }: Side = side
      progress(`${scenario} · ${label} starts`)
      const redis = await startRedis()
      const target = await startTarget(name, { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0', ...env?.() })
      open.push({ label, target, redis, own: {}, isFilled: prepare !== undefined })
      if (prepare) open.at(-1)!.own = await prepare(redis, target)
    }
    for (const { name, load } of settings) {
      const rounds = open.map((): Measure[] => [])
      if (!effort.isQuick) {
        for (const { target, own } of open) {
          await measure(target, undefined, { ...load, ...own, duration: WARM_UP_S })
        }
      }
      for (let round = 0; round < effort.rounds; round++) {
        for (const [i, { label, target, redis, own, isFilled }] of open.entries()) {
          progress(`${scenario} · ${name} · round ${round + 1} of ${effort.rounds} · ${label}`)
          if (!isFilled) await redis.client.flushall()
          const measured = await measure(target, redis.client, { ...load, ...own, ...roundLength(effort) })
          rounds[i]!.push({ ...measured, target: label, setting: name })
        }
      }
      rows.push(...rounds.map(medianOf))
    }
  } finally {
    for (const { target, redis } of open) {
      await target.stop()
      await redis.stop()
    }
  }
  return {
    rows,
    of(target, setting) {
      const row = rows.find(
        (one) => one.target === target && (setting === undefined || one.setting === setting),
      )
      if (!row) throw new Error(`${target} at ${setting} was not measured`)
      return row
    },
  }
}

export interface Comparison {
  /** Medians of the rounds, by setting and then by side. */
  rows: Measure[]
  of(target: string, setting?: string): Measure
}
