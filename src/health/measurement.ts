/**
 * Measures Redis for the health routes: a round trip, the server's INFO, and the jobs of each queue. It uses the `admin`
 * connection, so that a health check never delays a job.
 */
import type { SharedParts } from '../feature.ts'
import { readServerInfo, SERVER_INFO_COMMANDS, type ServerInfo } from '../redis/connection/server-info.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { QueueCounts } from './health-responses.ts'

export interface Measurement {
  /** `undefined` while Redis cannot be read; `error` says why. */
  server: ServerInfo | undefined
  error: string | undefined
  roundTripMs: number | null
  queues: QueueCounts
  /** Queues that could not be counted, because a key of theirs is not what BullMQ writes. */
  uncounted: string[]
  /** Names of all queues, counted or not. */
  known: string[]
}

/** Bounds the cost and the length of a response: queues beyond it are known but not counted. */
const MAX_COUNTED_QUEUES = 50

const PING: RedisOperation = { label: 'ping', priority: 'list', isWrite: false, commands: 1 }
const INFO: RedisOperation = {
  label: 'serverInfo',
  priority: 'list',
  isWrite: false,
  commands: SERVER_INFO_COMMANDS,
}

type Parts = Pick<SharedParts, 'connections' | 'gateway' | 'registry'>

/** Never rejects: a failure is part of the measurement. */
export async function measure({ connections, gateway, registry }: Parts): Promise<Measurement> {
  try {
    const startedAt = performance.now()
    await ping(gateway)
    const roundTripMs = millisecondsSince(startedAt)
    const server = await gateway.onAdmin(INFO, readServerInfo)
    const known = await registry.known()
    const { queues, uncounted } = await countQueues(registry, known.slice(0, MAX_COUNTED_QUEUES))
    return { server, error: undefined, roundTripMs, queues, uncounted, known }
  } catch (error) {
    // The message says what happened to the command; only the connection knows why.
    const { lastError } = connections.stats()
    const { message } = error as Error
    const reason = lastError === null ? message : `${message} (${lastError})`
    return { server: undefined, error: reason, roundTripMs: null, queues: {}, uncounted: [], known: [] }
  }
}

/** One command. Rejects with a SluiceError. */
export async function ping(gateway: RedisGateway): Promise<void> {
  await gateway.onAdmin(PING, (client) => client.ping())
}

async function countQueues(registry: Parts['registry'], names: string[]) {
  const queues: QueueCounts = {}
  const uncounted: string[] = []
  await Promise.all(
    names.map(async (name) => {
      const counts = await registry.counts(name).catch(() => undefined)
      if (counts) queues[name] = counts
      else uncounted.push(name)
    }),
  )
  return { queues, uncounted }
}

/** Milliseconds since `startedAt` (performance.now()), to two decimals. */
export function millisecondsSince(startedAt: number): number {
  return Math.round((performance.now() - startedAt) * 100) / 100
}
