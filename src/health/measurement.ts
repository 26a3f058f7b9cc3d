/**
 * Measures Redis for the health routes: a round trip, the server's INFO, whether scripts run, and the jobs of the queues that
 * were used last. It uses the `admin` connection, so that a health check never delays a job. Its cost does not grow with the
 * number of queues.
 */
import type { SharedParts } from '../feature.ts'
import type { KnownNames } from '../queues/known-queues.ts'
import { readServerInfo, SERVER_INFO_COMMANDS, type ServerInfo } from '../redis/connection/server-info.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { JobCounts } from '../redis/scripts/queues/count-queues.ts'
import type { ScriptProbe } from './script-probe.ts'

export interface MeasuredQueues {
  /** Those with the most waiting and failed jobs first. */
  counted: [queue: string, counts: JobCounts][]
  /** Queues that could not be counted, because a key of theirs is not what BullMQ writes. */
  uncounted: string[]
  /** All queues; the names of those that were examined. */
  known: KnownNames
}

export interface Measurement extends MeasuredQueues {
  /** `undefined` while Redis cannot be read; `error` says why. */
  server: ServerInfo | undefined
  error: string | undefined
  roundTripMs: number | null
  /** Why Redis runs no scripts. */
  scriptsProblem: string | undefined
}

/** Bounds the cost: of more queues, those that were used last are counted. */
export const MAX_COUNTED_QUEUES = 500

const PING: RedisOperation = { label: 'ping', priority: 'list', isWrite: false, commands: 1 }
const INFO: RedisOperation = {
  label: 'serverInfo',
  priority: 'list',
  isWrite: false,
  commands: SERVER_INFO_COMMANDS,
}

type Parts = Pick<SharedParts, 'connections' | 'gateway' | 'registry'>

/** Never rejects: a failure is part of the measurement. */
export async function measure(
  { connections, gateway, registry }: Parts,
  scriptProbe: ScriptProbe,
): Promise<Measurement> {
  try {
    const startedAt = performance.now()
    await ping(gateway)
    const roundTripMs = millisecondsSince(startedAt)
    const server = await gateway.onAdmin(INFO, readServerInfo)
    const scriptsProblem = await scriptProbe.problem()
    // Without scripts the queues cannot be counted.
    const queues = scriptsProblem === undefined ? await measureQueues(registry) : NO_QUEUES
    return { server, error: undefined, roundTripMs, scriptsProblem, ...queues }
  } catch (error) {
    // The message says what happened to the command; only the connection knows why.
    const { lastError } = connections.stats()
    const { message } = error as Error
    const reason = lastError === null ? message : `${message} (${lastError})`
    return { server: undefined, error: reason, roundTripMs: null, scriptsProblem: undefined, ...NO_QUEUES }
  }
}

const NO_QUEUES: MeasuredQueues = { counted: [], uncounted: [], known: { total: 0, names: [] } }

/** One command. Rejects with a SluiceError. */
export async function ping(gateway: RedisGateway): Promise<void> {
  await gateway.onAdmin(PING, (client) => client.ping())
}

async function measureQueues(registry: Parts['registry']): Promise<MeasuredQueues> {
  const known = await registry.known(MAX_COUNTED_QUEUES)
  const counts = await registry.countMany(known.names)
  return { ...sortQueues(known.names, counts), known }
}

/** `counts`: of each name, in the same order. The sort is stable: of equal queues, the one used last comes first. */
export function sortQueues(
  names: string[],
  counts: (JobCounts | undefined)[],
): Pick<MeasuredQueues, 'counted' | 'uncounted'> {
  const counted: [string, JobCounts][] = []
  const uncounted: string[] = []
  names.forEach((name, index) => {
    const ofQueue = counts[index]
    if (ofQueue) counted.push([name, ofQueue])
    else uncounted.push(name)
  })
  const weight = ({ waiting, prioritized, failed }: JobCounts) => waiting + prioritized + failed
  counted.sort(([, a], [, b]) => weight(b) - weight(a))
  return { counted, uncounted }
}

/** Milliseconds since `startedAt` (performance.now()), to two decimals. */
export function millisecondsSince(startedAt: number): number {
  return Math.round((performance.now() - startedAt) * 100) / 100
}
