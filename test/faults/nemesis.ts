/** What does harm: it starts, it stops, it says what it is. */
import type { RedisServer, Service } from './processes.ts'
import type { TcpProxy } from './proxy.ts'
import { sleep } from './wait.ts'

export interface Nemesis {
  /** In the table, and how its strikes are counted. */
  what: string
  start(): Promise<void> | void
  /** Resolves when what was harmed can work again. */
  stop(): Promise<void> | void
}

export const killRedis = (redis: RedisServer): Nemesis => ({
  what: 'SIGKILL of Redis',
  start: () => redis.kill(),
  stop: () => redis.start(),
})

export const killService = (service: Service): Nemesis => ({
  what: 'SIGKILL of the service',
  start: () => service.kill(),
  stop: () => service.start(),
})

export const freezeService = (service: Service): Nemesis => ({
  what: 'SIGSTOP of the service',
  start: () => service.freeze(),
  stop: () => service.thaw(),
})

export const halfOpen = (proxy: TcpProxy): Nemesis => ({
  what: 'connections half open',
  start: () => proxy.goHalfOpen(),
  stop: () => {},
})

export interface Strikes {
  nemeses: Nemesis[]
  /** Between one and the next, ms: a random time between these. */
  restMs: [from: number, to: number]
  /** How long each holds, ms. */
  holdMs: [from: number, to: number]
  /** Asked before each. */
  isEnough(strikes: number): boolean
  mark(what: string): void
}

/** One after the other, in turn; returns how often each has struck. */
export async function strike({ nemeses, restMs, holdMs, isEnough, mark }: Strikes) {
  const counts: Record<string, number> = {}
  for (let strikes = 0; !isEnough(strikes); strikes++) {
    const nemesis = nemeses[strikes % nemeses.length]!
    await sleep(between(restMs))
    mark(`start: ${nemesis.what}`)
    await nemesis.start()
    await sleep(between(holdMs))
    await nemesis.stop()
    mark(`stop: ${nemesis.what}`)
    counts[nemesis.what] = (counts[nemesis.what] ?? 0) + 1
  }
  await sleep(restMs[1])
  return counts
}

function between([from, to]: [number, number]): number {
  return from + Math.random() * (to - from)
}
