/**
 * The Lua scripts, read once at start, run by their SHA-1. A server that does not know a script (first use, SCRIPT
 * FLUSH, failover) says NOSCRIPT before running anything, and is sent the text.
 *
 * `enqueue.lua` has a place for BullMQ's own add scripts; they are put in from the installed package, unchanged.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Redis } from 'ioredis'
import { bullmqKeyNamesAsLua, bullmqScriptAsLua } from '../../bullmq/script-source.ts'

export interface Script {
  readonly text: string
  readonly sha: string
}

type ScriptArgument = string | number | Buffer

export const enqueueScript = loadScript('enqueue')
export const readJobsScript = loadScript('read-jobs')
export const listJobsScript = loadScript('list-jobs')
export const inspectStreamsScript = loadScript('inspect-streams')
export const bullmqCommandsScript = loadScript('run-bullmq-commands')
export const recoverStalledScript = loadScript('recover-stalled')

/** One EVALSHA; two commands when the server has to be told the text first. */
export async function runScript(
  client: Redis,
  script: Script,
  keys: string[],
  args: ScriptArgument[],
): Promise<unknown> {
  try {
    return await client.evalsha(script.sha, keys.length, ...keys, ...args)
  } catch (error) {
    if (!(error as Error).message.startsWith('NOSCRIPT')) throw error
    return client.eval(script.text, keys.length, ...keys, ...args)
  }
}

/** Reads `<name>.lua` and inserts what its `--@include` and `--@bullmq` lines name. */
export function loadScript(name: string): Script {
  const text = read(name)
    .replace(/^--@include ([\w-]+)$/gm, (_, included: string) => read(included))
    .replace(/^--@bullmq (\w+)$/gm, (_, script: string) => bullmqScriptAsLua(script))
    .replace(/^--@bullmq-keys (\w+)$/gm, (_, script: string) => bullmqKeyNamesAsLua(script))
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

function read(name: string): string {
  return readFileSync(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}
