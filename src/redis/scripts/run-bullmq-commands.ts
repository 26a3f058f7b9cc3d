/** Runs any number of recorded BullMQ commands (bullmq/command-recorder.ts) in one EVALSHA. */
import type { Redis } from 'ioredis'
import type { BullmqCommand } from '../../bullmq/command-recorder.ts'
import { bullmqScript } from '../../bullmq/script-source.ts'
import { packTexts, putText } from '../msgpack.ts'
import { loadScript, runScriptForBytes } from './run-script.ts'

const script = loadScript('run-bullmq-commands')

/** The number and the key count of each of BullMQ's scripts, as run-bullmq-commands.lua expects them. */
const scriptHeads = new Map(
  script.bullmqScripts.map((name, index) => [name, { number: index + 1, keyCount: bullmqScript(name).keys }]),
)

/**
 * The reply of one run of a command, or the text of its error. `isBounded`: the queue limits how many jobs are active.
 * `removedId`: the take met a job whose key is not a hash, and took it out of the queue.
 */
export type CommandReply = CommandResult | { error: string } | { error: string; removedId: string }

export interface CommandResult {
  /** Texts are Buffers. They may be views of larger ones. */
  reply: unknown
  isBounded: boolean
}

/** The error of a take whose concurrency limit has another revision in Redis. */
export const LIMIT_REVISED = 'LIMIT_REVISED'
/** The beginning of the error of a take whose `ConcurrencyCheck.key` is not a sorted set; the key follows. */
export const LIMIT_DAMAGED = 'LIMIT_DAMAGED '

/** A limit on the jobs that one worker leases in all processes together. Times are ms since 1970. */
export interface ConcurrencyCheck {
  /** Sorted set of the jobs that the worker leases, scored by when the lease ends. */
  key: string
  /** Hash whose field `revision` must equal `revision`; otherwise nothing is taken. */
  owner: string
  revision: string
  limit: number
  nowMs: number
  /** When a lease that is taken now ends. */
  untilMs: number
  /** Keys of the jobs that the worker no longer leases. */
  freed: string[]
}

/**
 * `takeBytesMax`: most bytes that the jobs of a take have together; its first job may be larger. `skipped`: keys of the jobs
 * that a take passes over.
 */
export interface RunOptions {
  takeBytesMax: number
  check?: ConcurrencyCheck | undefined
  skipped: readonly string[]
}

/** Sends one EVALSHA. Resolves with the replies of the runs of each command, in order. Rejects as Redis does. */
export async function runBullmqCommands(
  client: Redis,
  commands: BullmqCommand[],
  { takeBytesMax, check, skipped }: RunOptions,
): Promise<CommandReply[][]> {
  const [first] = commands
  if (!first) return []
  const keys = [String(first.list[0])]
  const args: (Buffer | number | string)[] = [packCommands(commands), takeBytesMax]
  if (check) {
    const { key, owner, nowMs, untilMs, limit, revision, freed } = check
    keys.push(key, owner)
    args.push(packTexts([String(nowMs), String(untilMs), String(limit), revision, ...freed]))
  }
  if (skipped.length > 0) args.push(...(check ? [] : ['']), ...skipped)
  const replies = (await runScriptForBytes(client, script, keys, args)) as [kind: 0 | 1 | 2, unknown, 1?][][]
  return replies.map((runs) => runs.map(toReply))
}

function toReply([kind, reply, bounded]: [kind: 0 | 1 | 2, unknown, 1?]): CommandReply {
  if (kind === 1) return { reply, isBounded: bounded === 1 }
  return kind === 2 ? { error: 'its key is not a hash', removedId: String(reply) } : { error: String(reply) }
}

/** ARGV[1]: one msgpack array. Numbers are at most 127, so each is one byte; every key and argument is a text. */
function packCommands(commands: BullmqCommand[]): Buffer {
  let values = 0
  let size = 5
  for (const { list } of commands) {
    values += 5 + list.length
    size += 5
    // A UTF-16 unit takes three bytes at most.
    for (const value of list)
      size += 5 + (Buffer.isBuffer(value) ? value.length : 3 * String(value ?? '').length)
  }
  const packed = Buffer.allocUnsafe(size)
  let at = packed.writeUInt8(0xdd, 0)
  at = packed.writeUInt32BE(values, at)
  for (const { script: name, list, times, follows } of commands) {
    const { number, keyCount } = scriptHeads.get(name)!
    packed[at++] = number
    packed[at++] = keyCount
    packed[at++] = times
    packed[at++] = follows ? 1 : 0
    packed[at++] = list.length
    for (const value of list) at = putText(packed, at, Buffer.isBuffer(value) ? value : String(value ?? ''))
  }
  return packed.subarray(0, at)
}
