/** Faults that are started and stopped repeatedly (the term is Jepsen's). */
import type { RedisServer, Service } from './processes.ts'
import type { TcpProxy } from './proxy.ts'
import { sleep } from './timing.ts'

export interface Nemesis {
  /** Its name in the results, under which its strikes are counted. */
  what: string
  start(): Promise<void> | void
  /** Resolves when the target can work again. */
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
  /** Pause between strikes, ms: random within this range. */
  restMs: [from: number, to: number]
  /** Duration of a strike, ms. */
  holdMs: [from: number, to: number]
  /** Called before each strike. */
  isEnough(strikes: number): boolean
  mark(what: string): void
}

/** Strikes with each nemesis in turn; returns the number of strikes of each. */
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
