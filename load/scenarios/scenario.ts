/** What a scenario is, the job that all of them use, and how targets are compared. */
import { type Load, type Measure, measure, medianOf, startTarget, type Target } from '../bench.ts'
import { type PrivateRedis, startRedis } from '../private-redis.ts'

export interface Goal {
  what: string
  measured: number
  /** `measured` has to be at most, or at least, this. */
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
  /** Jobs of a long queue. */
  backlog: number
}

export const json = { 'content-type': 'application/json' }
export const job = {
  queue: 'load',
  name: 'welcome',
  data: { to: 'ann@example.com', template: 'welcome', locale: 'en', userId: 4711 },
}

/** Each target on a Redis of its own; a warm-up; then rounds in turn, so that a noisy machine hits all alike. */
export async function compare(
  names: string[],
  effort: Effort,
  load: Load,
  env: Record<string, string> = {},
): Promise<Record<string, Measure>> {
  const redises: PrivateRedis[] = []
  const targets: { target: Target; redis: PrivateRedis }[] = []
  try {
    for (const name of names) {
      const redis = await startRedis()
      redises.push(redis)
      targets.push({ target: await startTarget(name, { REDIS_SOCKET: redis.socket, ...env }), redis })
    }
    for (const { target } of targets) await measure(target, undefined, { ...load, duration: 2 })
    const rounds: Record<string, Measure[]> = {}
    for (let round = 0; round < effort.rounds; round++) {
      for (const { target, redis } of targets) {
        await redis.client.flushall()
        const measured = await measure(target, redis.client, { ...load, duration: effort.seconds })
        const list = rounds[target.name] ?? []
        list.push(measured)
        rounds[target.name] = list
      }
    }
    return Object.fromEntries(Object.entries(rounds).map(([name, list]) => [name, medianOf(list)]))
  } finally {
    for (const { target } of targets) await target.stop()
    for (const redis of redises) await redis.stop()
  }
}
