/**
 * Attacks beside ordinary traffic: the service has little memory and two API keys, one of which attacks. Measures what the
 * other key's requests take before, during and after the attack, and the memory of the service.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { addKey, createApiKeySecret, type KeyFile } from '../../src/auth/key-file.ts'
import { percentile } from './checker.ts'
import type { RedisServer, Service } from './processes.ts'
import { type AttackFigures, type Check, type Finding, round, type Scale } from './scenario.ts'
import type { Testbed } from './testbed.ts'
import { sleep, until } from './timing.ts'

/** The start of the check on the times of the ordinary traffic. */
export const ORDINARY_TOOK = 'ordinary requests took'
/** The queue of the ordinary traffic. */
export const ORDINARY = 'ordinary'
/** A Node option. */
export const HEAP = '--max-old-space-size=512'
/** How long an attack lasts, in a complete run and a quick one. */
const ATTACK_S = 60
const QUICK_ATTACK_S = 2.5
/** How much longer ordinary requests may take during an attack. */
const TIMES = 5
/** A shorter time is never too long: an accepted request may hold the event loop for 25 ms. */
const FLOOR_MS = 25
/** On a machine with other load. */
const QUICK_FLOOR_MS = 500
/** How much memory may remain after a minute at most, relative to before. */
const REMAINS = 1.2
/** A few seconds later the heap has not shrunk yet. */
const QUICK_REMAINS_MB = 150

export interface Target {
  redis: RedisServer
  service: Service
  keysFile: string
  /** The Authorization header of each key. */
  attacker: { authorization: string }
  ordinary: { authorization: string }
}

export interface TargetOptions {
  env?: Record<string, string>
  /** Instead of Sluice, a service without bounds (boundless-service.ts). */
  isBoundless?: boolean
  /** A command that starts the service; see Testbed. */
  wrapper?: string[]
}

export async function openTarget(
  testbed: Testbed,
  { env = {}, isBoundless = false, wrapper = [] }: TargetOptions = {},
): Promise<Target> {
  const redis = await testbed.redis()
  const keysFile = join(testbed.dir, 'keys.json')
  let file: KeyFile = { version: 1, keys: [] }
  const headersOf = (id: string) => {
    const secret = createApiKeySecret(id)
    const scopes = ['enqueue', 'read', 'work', 'manage'] as const
    const grant = { id, scopes: [...scopes], queues: ['*'], rate: null }
    file = addKey(file, grant, secret, new Date().toISOString())
    return { authorization: `Bearer ${secret}` }
  }
  const [attacker, ordinary] = [headersOf('attacker'), headersOf('ordinary')]
  writeFileSync(keysFile, JSON.stringify(file), { mode: 0o600 })
  const settings = { NODE_OPTIONS: HEAP, API_KEYS_FILE: keysFile, ...env }
  const service = isBoundless
    ? await testbed.otherService('test/faults/boundless-service.ts', redis.url, settings, wrapper)
    : await testbed.service(redis.url, settings, wrapper)
  return { redis, service, keysFile, attacker, ordinary }
}

/**
 * Runs the attack for `seconds` between two phases without it. `attack` resolves when its requests have ended. The checks
 * are those that hold for every attack; a control ends with the attack.
 */
export async function attackBeside(
  testbed: Testbed,
  scale: Scale,
  { service, ordinary }: Target,
  attack: (seconds: number) => Promise<void>,
): Promise<Finding & { attack: AttackFigures }> {
  const { isQuick, isControl = false } = scale
  const traffic = startTraffic(testbed, service, ordinary.authorization, scale)
  await until('ordinary requests are answered', () => traffic.between(0).statuses.includes(200))
  await sleep(isQuick ? 300 : 5_000)
  const quietAt = now()
  await sleep(isControl ? 500 : isQuick ? 1_000 : 15_000)
  const memory = watchMemory(testbed, service)
  scale.progress('attack')
  const attackAt = now()
  await attack(isQuick ? QUICK_ATTACK_S : ATTACK_S)
  const afterAt = now()
  const mostMb = memory.stop()
  const remainsMb = isQuick ? memory.beforeMb * REMAINS + QUICK_REMAINS_MB : memory.beforeMb * REMAINS
  if (!isControl) {
    scale.progress('after the attack')
    // Requests after the attack are measured too.
    await sleep(isQuick ? 500 : 15_000)
    const isBack = () => service.rssMb() <= remainsMb
    await until('the memory is released', isBack, isQuick ? 4_500 : 45_000, 100).catch(() => {})
  }
  const afterMb = service.rssMb()
  const endAt = now()
  await traffic.stop()
  const quiet = traffic.between(quietAt, attackAt)
  const during = traffic.between(attackAt, afterAt)
  const after = traffic.between(afterAt, endAt)
  const share = isQuick ? 0.9 : 0.99
  const [quietMs, duringMs] = [percentile(quiet.times, share), percentile(during.times, share)]
  const unanswered = [...during.statuses, ...after.statuses].filter((status) => status < 200 || status > 299)
  const checks: Check[] = [
    {
      what: `${ORDINARY_TOOK}, ${isQuick ? 'p90' : 'p99'}, ms`,
      measured: duringMs,
      atMost: round(Math.max(TIMES * quietMs, isQuick ? QUICK_FLOOR_MS : FLOOR_MS)),
    },
    {
      what: 'ordinary requests not answered with 2xx',
      measured: unanswered.length,
      atMost: 0,
      samples: [...new Set(unanswered)].map(String),
    },
    { what: 'ordinary responses', measured: during.times.length, atLeast: 20 },
    { what: 'memory after the attack, MB', measured: afterMb, atMost: round(remainsMb) },
  ]
  const figures: AttackFigures = {
    seconds: (afterAt - attackAt) / 1_000,
    quietMs: percentile(quiet.times, 0.99),
    duringMs: percentile(during.times, 0.99),
    afterMs: percentile(after.times, 0.99),
    beforeMb: memory.beforeMb,
    mostMb,
    afterMb,
  }
  return { checks, counts: { 'ordinary requests': during.times.length }, attack: figures }
}

/** Adds the checks and counts of one attack to those of all attacks. */
export function withChecks<Found extends Finding>(
  finding: Found,
  checks: Check[],
  counts: Record<string, number> = {},
): Found {
  return { ...finding, checks: [...checks, ...finding.checks], counts: { ...finding.counts, ...counts } }
}

function startTraffic(testbed: Testbed, { url }: Service, key: string, { isQuick, isControl }: Scale) {
  const program = testbed.program('test/faults/ordinary-traffic.ts', {
    URL: url,
    QUEUE: ORDINARY,
    RATE: isQuick ? '40' : '100',
    KEY: key.replace('Bearer ', ''),
    PATIENCE: isControl ? '200' : '5000',
  })
  return {
    /** Requests sent in a period, in ms since 1970, and answered. */
    between(from: number, to = Number.POSITIVE_INFINITY) {
      const sent = program
        .output()
        .split('\n')
        .filter((line) => line.startsWith('[') && line.endsWith(']'))
        .map((line) => JSON.parse(line) as [at: number, ms: number, status: number])
        .filter(([at]) => at >= from && at < to)
      return { times: sent.map(([, ms]) => ms), statuses: sent.map(([, , status]) => status) }
    },
    stop: () => program.end('SIGTERM'),
  }
}

/** Samples the memory until `stop`, which returns the most. */
function watchMemory(testbed: Testbed, service: Service) {
  const beforeMb = service.rssMb()
  let mostMb = beforeMb
  const sampling = setInterval(() => {
    mostMb = Math.max(mostMb, service.rssMb())
  }, 50)
  testbed.onEnd(() => clearInterval(sampling))
  return {
    beforeMb,
    stop() {
      clearInterval(sampling)
      return Math.max(mostMb, service.rssMb())
    },
  }
}

function now(): number {
  return performance.timeOrigin + performance.now()
}
