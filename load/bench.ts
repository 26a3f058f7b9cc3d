/**
 * Starts a target in its own process, drives it with autocannon and measures what a request costs the target
 * and Redis in CPU time and commands. Latencies vary on a shared machine; CPU time and command counts are
 * reproducible.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import autocannon from 'autocannon'
import type { Redis } from 'ioredis'
import type { ProcessCost } from './targets/serve.ts'

/** CPU time of redis-server in µs, and the commands that clients sent; a script counts as one command. */
export async function redisCost(
  client: Redis,
): Promise<{ cpuUs: number; commands: number; connections: number }> {
  const info = await client.info('everything')
  const number = (name: string) => Number(new RegExp(`^${name}:(\\S+)`, 'm').exec(info)?.[1] ?? 0)
  const calls = [...info.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)]
  const fromClients = new Set([
    'evalsha',
    'eval',
    'script|load',
    'info',
    'ping',
    'hello',
    'client|setinfo',
    'client|setname',
    'client|id',
    'client|unblock',
    'xread',
    // BullMQ's getJob. Only worker scripts also call it, and no target has workers.
    'hgetall',
  ])
  return {
    cpuUs: (number('used_cpu_user') + number('used_cpu_sys')) * 1e6,
    commands: calls
      .filter(([, name]) => fromClients.has(name!))
      .reduce((sum, [, , count]) => sum + Number(count), 0),
    connections: number('connected_clients'),
  }
}

export interface Target {
  name: string
  url: string
  cost(): Promise<ProcessCost>
  /** Heap and buffers in use after a garbage collection, bytes. */
  memory(): Promise<number>
  /** The longest turn of the event loop since the last call, ms; the first call only begins to watch. */
  longestTurnMs(): Promise<number>
  stop(): Promise<void>
}

export async function startTarget(name: string, env: Record<string, string>): Promise<Target> {
  const file = new URL(`./targets/${name}.js`, import.meta.url)
  const child = fork(file, {
    // No API keys unless the scenario sets a file.
    env: { ...process.env, NODE_ENV: 'production', API_KEYS_FILE: '/nowhere/keys.json', ...env },
    execArgv: ['--expose-gc', ...profilingArgs(name)],
  })
  const { url } = (await nextMessage(child)) as { url: string }
  return {
    name,
    url,
    async cost() {
      child.send('cost')
      return ((await nextMessage(child)) as { cost: ProcessCost }).cost
    },
    async memory() {
      child.send('memory')
      return ((await nextMessage(child)) as { memoryBytes: number }).memoryBytes
    },
    async longestTurnMs() {
      child.send('turns')
      return ((await nextMessage(child)) as { longestTurnMs: number }).longestTurnMs
    },
    async stop() {
      const exit = once(child, 'exit')
      child.send('stop')
      await exit
    },
  }
}

/** `PROFILE=dir` makes each target write a CPU profile there. */
function profilingArgs(name: string): string[] {
  const dir = process.env['PROFILE']
  return dir
    ? ['--cpu-prof', `--cpu-prof-dir=${dir}`, `--cpu-prof-name=${name}-${process.pid}.cpuprofile`]
    : []
}

async function nextMessage(child: ChildProcess): Promise<unknown> {
  const exit = new AbortController()
  const ended = once(child, 'exit', { signal: exit.signal }).then(() => {
    throw new Error('The target exited')
  })
  ended.catch(() => {})
  const [message] = (await Promise.race([once(child, 'message'), ended])) as [unknown]
  exit.abort()
  return message
}

export interface Measure {
  target: string
  /** The variant within the scenario, such as `50 connections`. */
  setting: string
  requestsPerS: number
  p50Ms: number
  p99Ms: number
  p999Ms: number
  nodeUs: number
  /** Of the wall time, in pauses for garbage collection. */
  gcUs: number
  redisUs: number
  commands: number
  /** The target's connections to Redis. */
  connections: number
  rssMb: number
  errors: number
  /** Columns that only this scenario has. */
  more?: Record<string, number>
}

/** autocannon's options, with a path instead of a URL. */
export type Load = Omit<autocannon.Options, 'url'> & { path?: string }

/** What a load generator saw. */
export interface Driven {
  requests: number
  seconds: number
  p50Ms: number
  p99Ms: number
  p999Ms: number
  errors: number
}

/** Sends the load to the target until its duration or amount is reached. */
export type Drive = (target: Target, load: Load) => Promise<Driven>

/** Runs and measures one load. Costs are per request; `redis` is `undefined` for a target without Redis. */
export async function measure(
  target: Target,
  redis: Redis | undefined,
  load: Load,
  drive: Drive = driveWithAutocannon,
): Promise<Measure> {
  const before = await readCosts(target, redis)
  const { requests, seconds, p50Ms, p99Ms, p999Ms, errors } = await drive(target, load)
  const after = await readCosts(target, redis)
  return {
    target: target.name,
    setting: '',
    requestsPerS: requests / seconds,
    p50Ms,
    p99Ms,
    p999Ms,
    nodeUs: (after.node.cpuUs - before.node.cpuUs) / requests,
    gcUs: (after.node.gcUs - before.node.gcUs) / requests,
    redisUs: (after.redis.cpuUs - before.redis.cpuUs) / requests,
    commands: (after.redis.commands - before.redis.commands) / requests,
    // One connection belongs to the measurement.
    connections: Math.max(0, after.redis.connections - 1),
    rssMb: Math.round(after.node.rssBytes / 1_048_576),
    errors,
  }
}

async function driveWithAutocannon(target: Target, load: Load): Promise<Driven> {
  const result = await autocannon({ ...load, url: target.url + (load.path ?? '') })
  return {
    requests: result.requests.total,
    seconds: result.duration,
    p50Ms: result.latency.p50,
    p99Ms: result.latency.p99,
    p999Ms: result.latency.p99_9,
    errors: result.errors + result.non2xx,
  }
}

async function readCosts(target: Target, redis: Redis | undefined) {
  return {
    node: await target.cost(),
    redis: redis ? await redisCost(redis) : { cpuUs: 0, commands: 0, connections: 0 },
  }
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}

/** The median of each figure over the rounds. */
export function medianOf(rounds: Measure[]): Measure {
  const pick = (key: keyof Omit<Measure, 'target' | 'setting' | 'more'>) =>
    median(rounds.map((round) => round[key]))
  return {
    target: rounds[0]!.target,
    setting: rounds[0]!.setting,
    requestsPerS: pick('requestsPerS'),
    p50Ms: pick('p50Ms'),
    p99Ms: pick('p99Ms'),
    p999Ms: pick('p999Ms'),
    nodeUs: pick('nodeUs'),
    gcUs: pick('gcUs'),
    redisUs: pick('redisUs'),
    commands: pick('commands'),
    connections: pick('connections'),
    rssMb: pick('rssMb'),
    errors: rounds.reduce((sum, round) => sum + round.errors, 0),
    more: mediansOf(rounds.map(({ more = {} }) => more)),
  }
}

function mediansOf(columns: Record<string, number>[]): Record<string, number> {
  const names = Object.keys(columns[0] ?? {})
  return Object.fromEntries(names.map((name) => [name, median(columns.map((one) => one[name]!))]))
}
