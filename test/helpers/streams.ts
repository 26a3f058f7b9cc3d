/** A stream reader, or the queue events, on its own connections, wired as in src/app.ts. */

import { pino } from 'pino'
import type { Test } from 'tap'
import { createQueueEvents, type QueueEvents } from '../../src/events/queue-events.ts'
import {
  computeConnectionBudget,
  maxWaitingOperations,
} from '../../src/redis/connection/connection-budget.ts'
import { createRedisConnections, type RedisConnections } from '../../src/redis/connection/connections.ts'
import { createRedisGateway, type RedisGateway } from '../../src/redis/gateway/redis-gateway.ts'
import { createSemaphore } from '../../src/redis/gateway/semaphore.ts'
import { createKeyspace } from '../../src/redis/keyspace.ts'
import type { StreamGap } from '../../src/redis/streams/gap-detector.ts'
import { createStreamReader, type StreamReader } from '../../src/redis/streams/stream-reader.ts'
import { eventually, testConfig } from './app.ts'
import { type TestRedis, uniquePrefix } from './redis.ts'

type Address = Pick<TestRedis, 'socket'>
type Client = TestRedis['client']

const log = pino({ level: 'silent' })

export interface OpenReader {
  reader: StreamReader
  connections: RedisConnections
  /** The ids delivered for a stream, in order. */
  delivered(stream: string): string[]
  gaps: [stream: string, gap: StreamGap][]
  reconnects(): number
  /** Commands that the reader counted, by label. */
  sent: Record<string, number>
}

/** `onEntries` is called after the entries have been recorded. */
export async function openReader(
  t: Test,
  { socket }: Address,
  onEntries: (stream: string) => void = () => {},
): Promise<OpenReader> {
  const config = testConfig()
  const connections = createRedisConnections(config, { socket }, computeConnectionBudget(config, 1), log)
  t.teardown(() => connections.close())
  const ids = new Map<string, string[]>()
  const delivered = (stream: string) => ids.get(stream) ?? []
  const gaps: OpenReader['gaps'] = []
  const sent: Record<string, number> = {}
  let reconnects = 0
  const reader = createStreamReader({
    connections,
    log,
    epochKey: createKeyspace(config.QUEUE_PREFIX).flushMarker,
    replyBytesMax: config.MAX_ANSWER_BYTES,
    count(label, commands) {
      sent[label] = (sent[label] ?? 0) + commands
    },
    onEntries(stream, entries) {
      ids.set(stream, [...delivered(stream), ...entries.map(([id]) => id)])
      onEntries(stream)
    },
    onGap: (stream, gap) => gaps.push([stream, gap]),
    onReconnect: () => reconnects++,
  })
  t.teardown(() => reader.close())
  await allReady(connections)
  return { reader, connections, delivered, gaps, reconnects: () => reconnects, sent }
}

export interface OpenEvents {
  events: QueueEvents
  connections: RedisConnections
  gateway: RedisGateway
  prefix: string
  /** Advances the clock of the feeds, not that of the timers. */
  pass(ms: number): void
}

/** The queues of these names exist, without a job. */
const EXISTING = ['q', 'r', 'other', 'subscribed']

export async function openEvents(
  t: Test,
  { socket, client }: Pick<TestRedis, 'socket' | 'client'>,
  maxQueues = 1_000,
): Promise<OpenEvents> {
  const config = testConfig()
  const prefix = config.QUEUE_PREFIX
  for (const name of EXISTING) await client.hset(`${prefix}:${name}:meta`, 'version', 'bullmq')
  const connections = createRedisConnections(config, { socket }, computeConnectionBudget(config, 1), log)
  t.teardown(() => connections.close())
  const semaphore = createSemaphore(config.REDIS_MAX_CONCURRENT_OPS, maxWaitingOperations(config))
  const gateway = createRedisGateway(config, connections, semaphore)
  t.teardown(() => gateway.close())
  let passedMs = 0
  const now = () => Date.now() + passedMs
  const events = createQueueEvents({
    keyspace: createKeyspace(prefix),
    maxQueues,
    replyBytesMax: config.MAX_ANSWER_BYTES,
    connections,
    gateway,
    log,
    now,
  })
  t.teardown(() => events.close())
  await allReady(connections)
  return {
    events,
    connections,
    gateway,
    prefix,
    pass: (ms) => {
      passedMs += ms
    },
  }
}

async function allReady({ all }: RedisConnections): Promise<void> {
  await eventually(() => all.every(({ ready }) => ready))
}

/** A stream name that no other test uses. */
export function uniqueStream(name = 'q'): string {
  return `${uniquePrefix()}:${name}:events`
}

/** Adds `count` entries in one write and returns their ids. */
export async function addEntries(client: Client, stream: string, count = 1): Promise<string[]> {
  const pipeline = client.pipeline()
  for (let i = 0; i < count; i++) pipeline.xadd(stream, '*', 'event', 'added')
  return (await pipeline.exec())!.map(([, id]) => id as string)
}

/** Calls by command since the start of the server, including calls from scripts. */
export async function callsByCommand(client: Client): Promise<Record<string, number>> {
  const text = await client.info('commandstats')
  return Object.fromEntries(
    [...text.matchAll(/^cmdstat_(\S+):calls=(\d+)/gm)].map(([, command, calls]) => [command, Number(calls)]),
  )
}

export async function readCalls(client: Client): Promise<number> {
  return (await callsByCommand(client))['xread'] ?? 0
}

/** Calls by command within `ms`, except the INFO that measures them. */
export async function callsWithin(client: Client, ms: number): Promise<Record<string, number>> {
  const before = await callsByCommand(client)
  await new Promise((resolve) => setTimeout(resolve, ms))
  const after = Object.entries(await callsByCommand(client))
  const grown = after.map(([command, calls]) => [command, calls - (before[command] ?? 0)] as const)
  return Object.fromEntries(grown.filter(([command, calls]) => calls > 0 && command !== 'info'))
}

/** The client id of the reader's connection. */
export async function eventsSocket(client: Client): Promise<number> {
  const list = String(await client.call('CLIENT', 'LIST'))
  return Number(/^id=(\d+) .*name=sluice:events /m.exec(list)?.[1])
}

/** Resolves once the reader's XREAD blocks in Redis. */
export async function untilBlocked(client: Client): Promise<void> {
  await eventually(async () => (await client.info('clients')).includes('\nblocked_clients:1'))
}
