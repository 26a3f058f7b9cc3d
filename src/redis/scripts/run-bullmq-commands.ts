/** Runs commands that BullMQ would have sent (bullmq/command-recorder.ts), any number of them in one EVALSHA. */
import type { Redis } from 'ioredis'
import type { BullmqCommand } from '../../bullmq/command-recorder.ts'
import { bullmqScript } from '../../bullmq/script-source.ts'
import { packTexts, putText } from './msgpack.ts'
import { bullmqCommandsScript, runScript } from './run-script.ts'

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

/** What a run of a command gave, or the text of its error. `isBounded`: see run-bullmq-commands.lua. */
export type CommandReply = { reply: unknown; isBounded: boolean } | { error: string }

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
