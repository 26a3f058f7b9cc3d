/** What a scenario consists of, the job that all scenarios use, and the comparison of targets. */
import {
  type Drive,
  type Load,
  type Measure,
  measure,
  median,
  medianOf,
  startTarget,
  type Target,
} from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'
import { progress } from '../progress.ts'

export interface Goal {
  what: string
  measured: number
  /** The bound of `measured`; exactly one of the two is set. */
  atMost?: number
  atLeast?: number
  /** A run fails when the goal is missed, unless it is a quick one. */
  isRequired?: boolean
}

export interface Outcome {
  rows: Measure[]
  goals: Goal[]
}

export type ChartedColumn = 'requests/s' | 'Node µs'

export interface Scenario {
  name: string
  shows: string
  /** The column that its chart shows; `requests/s` by default. */
  chart?: ChartedColumn
  run(effort: Effort): Promise<Outcome>
}

export interface Effort {
  rounds: number
  seconds: number
  /** One setting of each scenario and few clients: a smoke test. */
  isQuick: boolean
}

const WARM_UP_S = 2
/** A quick run must not fail because other processes keep the machine busy. */
const offOnBusyMachines = { MAX_EVENT_LOOP_DELAY: '0' }
const QUICK_REQUESTS = 500

/** The length of a round, as options of autocannon. */
function roundLength({ isQuick, seconds }: Effort, { requests, quickRequests }: Setting): Partial<Load> {
  const amount = isQuick ? (quickRequests ?? QUICK_REQUESTS) : requests
  // autocannon checks only once per sample whether it has finished.
  return amount === undefined ? { duration: seconds } : { amount, sampleInt: 50 }
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
  /** How many requests a round sends; by default, as many as its duration allows. */
  requests?: number
  /** The same for a quick run; 500 by default. */
  quickRequests?: number
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
  /** autocannon, unless the side has a driver of its own. */
  drive?: Drive
  /** Further columns of a round, read from the target before and after it. */
  watch?(target: Target): Promise<() => Promise<Record<string, number>>>
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
  const open: OpenSide[] = []
  const measured: Measure[][] = []
  try {
    for (const side of sides.map((one) => (typeof one === 'string' ? { target: one } : one))) {
      const { target: name, label = name, env, prepare }: Side = side
      progress(`${scenario} · ${label} starts`)
      const redis = await startRedis()
      const target = await startTarget(name, {
        REDIS_SOCKET: redis.socket,
        MAX_CONNECTIONS: '0',
        ...(effort.isQuick && offOnBusyMachines),
        ...env?.(),
      })
      open.push({ side, label, target, redis, own: {} })
      if (prepare) open.at(-1)!.own = await prepare(redis, target)
    }
    for (const setting of settings) {
      const { name, load } = setting
      const rounds = open.map((): Measure[] => [])
      if (!effort.isQuick) {
        for (const { side, target, own } of open) {
          await measure(target, undefined, { ...load, ...own, duration: WARM_UP_S }, side.drive)
        }
      }
      for (let round = 0; round < effort.rounds; round++) {
        for (const [i, one] of open.entries()) {
          progress(`${scenario} · ${name} · round ${round + 1} of ${effort.rounds} · ${one.label}`)
          const row = await measureRound(one, { ...load, ...one.own, ...roundLength(effort, setting) })
          rounds[i]!.push({ ...row, setting: name })
        }
      }
      measured.push(...rounds)
    }
  } finally {
    for (const { target, redis } of open) {
      await target.stop()
      await redis.stop()
    }
  }
  return createComparison(measured)
}

interface OpenSide {
  side: Side
  label: string
  target: Target
  redis: PrivateRedis
  own: Partial<Load>
}

async function measureRound({ side, label, target, redis }: OpenSide, load: Load): Promise<Measure> {
  if (!side.prepare) await redis.client.flushall()
  const readMore = await side.watch?.(target)
  const row = await measure(target, redis.client, load, side.drive)
  return { ...row, target: label, ...(readMore && { more: await readMore() }) }
}

export interface Comparison {
  /** Medians of the rounds, by setting and then by side. */
  rows: Measure[]
  of(target: string, setting?: string): Measure
  /**
   * A figure of one target against another: the median of the ratios of the rounds. What slows the machine
   * for a while slows both targets of a round.
   */
  ratio(key: 'requestsPerS' | 'nodeUs', target: string, other: string, setting?: string): number
}

/** `measured`: the rounds of each setting and side. */
function createComparison(measured: Measure[][]): Comparison {
  function roundsOf(target: string, setting: string | undefined): Measure[] {
    const found = measured.find(
      ([one]) => one?.target === target && (setting === undefined || one.setting === setting),
    )
    if (!found) throw new Error(`${target} at ${setting} was not measured`)
    return found
  }
  return {
    rows: measured.map(medianOf),
    of: (target, setting) => medianOf(roundsOf(target, setting)),
    ratio(key, target, other, setting) {
      const others = roundsOf(other, setting)
      return median(roundsOf(target, setting).map((round, i) => round[key] / others[i]![key]))
    },
  }
}
