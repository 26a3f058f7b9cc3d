/**
 * What BullMQ would send to Redis for a worker, sent by us: its own classes are handed a backend whose client only notes
 * what it is told, and any number of such commands are one EVALSHA of run-bullmq-commands.lua. So BullMQ decides (retries,
 * backoff, retention, parents), and a batch is one round trip.
 */
import { QueueKeys, RedisQueueBackend } from 'bullmq'
import type { Redis } from 'ioredis'
import { packTexts, putText } from '../redis/scripts/msgpack.ts'
import {
  bullmqCommandsScript,
  bullmqScript,
  recoverStalledScript,
  runScript,
} from '../redis/scripts/run-script.ts'

/** In the order of run-bullmq-commands.lua. */
const scripts = [
  'moveToActive',
  'moveToFinished',
  'moveToDelayed',
  'retryJob',
  'moveJobFromActiveToWait',
  'extendLock',
  'updateProgress',
  'addLog',
]

type Argument = string | number | Buffer | undefined

export interface BullmqCommand {
  script: string
  /** Keys, then arguments, as BullMQ gives them to the script. */
  list: Argument[]
  /** How often it is run, at most 100; it ends with the first run that brings no job. */
  times: number
  /** It belongs to the last command that does not follow, and is run only if that gave 1, as extendLock does. */
  follows: boolean
}

/** What a run of a command gave, or the text of its error. `isBounded`: see run-bullmq-commands.lua. */
export type CommandReply = { reply: unknown; isBounded: boolean } | { error: string }

type BackendOptions = ConstructorParameters<typeof RedisQueueBackend>[4]

export interface RecordingBackendOptions {
  prefix: string
  queue: string
  opts: BackendOptions
}

/** A backend of BullMQ whose commands go to `note`, and nowhere else. */
export function createRecordingBackend(
  { prefix, queue, opts }: RecordingBackendOptions,
  note: (command: BullmqCommand) => void,
): RedisQueueBackend {
  const recorder = {
    async runCommand(versioned: string, list: Argument[]) {
      note({ script: versioned.slice(0, versioned.indexOf(':')), list, times: 1, follows: false })
      // As a script says that all went well.
      return 0
    },
  }
  const connection = { client: Promise.resolve(recorder) } as unknown
  const { all, toKey } = keysOf(prefix, queue)
  type Connection = ConstructorParameters<typeof RedisQueueBackend>[0]
  return new RedisQueueBackend(connection as Connection, queue, all, toKey, opts, undefined, false)
}

/** One thing at a time. */
export interface CommandRecorder {
  /** Lets BullMQ do something on a backend that sends nothing; resolves with what it would have sent. */
  record(
    opts: BackendOptions,
    act: (backend: RedisQueueBackend) => Promise<unknown>,
  ): Promise<BullmqCommand[]>
}

/**
 * To be used again and again: a backend has accessors of its own, which V8 keeps, with all that they can reach, until the
 * next full collection.
 */
export function createCommandRecorder(prefix: string, queue: string): CommandRecorder {
  let commands: BullmqCommand[] = []
  const note = (command: BullmqCommand) => commands.push(command)
  const backend = createRecordingBackend({ prefix, queue, opts: {} as BackendOptions }, note)
  const inner = backend as unknown as { queue: { opts: BackendOptions } }
  return {
    async record(opts, act) {
      commands = []
      inner.queue.opts = opts
      await act(backend)
      return commands
    },
  }
}

let lastKeys:
  | { prefix: string; queue: string; all: Record<string, string>; toKey(type: string): string }
  | undefined

/** Of the queue that was asked for last: a batch is of one. */
function keysOf(prefix: string, queue: string) {
  if (lastKeys?.prefix !== prefix || lastKeys.queue !== queue) {
    const queueKeys = new QueueKeys(prefix)
    const toKey = (type: string) => queueKeys.toKey(queue, type)
    lastKeys = { prefix, queue, all: queueKeys.getKeys(queue), toKey }
  }
  return lastKeys
}

/** A bound on the jobs that a consumer holds in all its processes; see run-bullmq-commands.lua. */
export interface ConcurrencyCheck {
  key: string
  owner: string
  nowMs: number
  untilMs: number
  limit: number
  revision: string
  /** Jobs that it holds no more. */
  freed: string[]
}

/** One command of Redis. Of each command given, in order, what its runs gave. Rejects as Redis does. */
export async function runBullmqCommands(
  client: Redis,
  commands: BullmqCommand[],
  share?: ConcurrencyCheck,
): Promise<CommandReply[][]> {
  const [first] = commands
  if (!first) return []
  const keys = [String(first.list[0])]
  const args = [pack(commands)]
  if (share) {
    const { key, owner, nowMs, untilMs, limit, revision, freed } = share
    keys.push(key, owner)
    args.push(packTexts([String(nowMs), String(untilMs), String(limit), revision, ...freed]))
  }
  const replies = (await runScript(client, bullmqCommandsScript, keys, args)) as [1 | 0, unknown, 1?][][]
  return replies.map((runs) =>
    runs.map(([ok, reply, bounded]) =>
      ok === 1 ? { reply, isBounded: bounded === 1 } : { error: String(reply) },
    ),
  )
}

/** Of the active jobs how many there are, and when the first of their locks runs out, ms from now (-1: one has none). */
export async function recoverStalledJobs(client: Redis, { list }: BullmqCommand): Promise<[number, number]> {
  const keyCount = bullmqScript('moveStalledJobsToWait').keys
  const keys = list.slice(0, keyCount).map(String)
  const args = list.slice(keyCount).map((value) => (Buffer.isBuffer(value) ? value : String(value ?? '')))
  return (await runScript(client, recoverStalledScript, [...keys, keys[ACTIVE_KEY]!], args)) as [
    number,
    number,
  ]
}

/** Its place among the keys of moveStalledJobsToWait. */
const ACTIVE_KEY = 2

/** One msgpack array; numbers up to 127 are one byte, and every argument is a text. */
function pack(commands: BullmqCommand[]): Buffer {
  let values = 0
  let size = 5
  for (const { list } of commands) {
    values += 5 + list.length
    size += 5
    // A UTF-16 unit is three bytes at most.
    for (const one of list) size += 5 + (Buffer.isBuffer(one) ? one.length : 3 * String(one ?? '').length)
  }
  const packed = Buffer.allocUnsafe(size)
  let at = packed.writeUInt8(0xdd, 0)
  at = packed.writeUInt32BE(values, at)
  for (const { script, list, times, follows } of commands) {
    packed[at++] = scripts.indexOf(script) + 1
    packed[at++] = bullmqScript(script).keys
    packed[at++] = times
    packed[at++] = follows ? 1 : 0
    packed[at++] = list.length
    for (const one of list) at = putText(packed, at, Buffer.isBuffer(one) ? one : String(one ?? ''))
  }
  return packed.subarray(0, at)
}
