/**
 * Loads the Lua scripts beside this file and runs them by SHA-1. A server that does not know a script (first
 * use, SCRIPT FLUSH, failover) replies NOSCRIPT before it runs anything, and then receives the text.
 *
 * A script may include fragments of ours (`--@include`) and BullMQ's own scripts, unchanged, from the
 * installed package (`--@bullmq`).
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
export const bullmqCommandsScript = loadScript('run-bullmq-commands')
export const recoverStalledScript = loadScript('recover-stalled')
export const putSubscriptionScript = loadScript('put-subscription')

/** Reads `<name>.lua` from this folder and expands its includes. Call it once, when the module loads. */
export function loadScript(name: string): Script {
  const text = readLua(name)
    .replace(/^--@include ([\w-]+)$/gm, (_, included: string) => readLua(included))
    .replace(/^--@bullmq (\w+)$/gm, (_, script: string) => bullmqScriptAsLua(script))
    .replace(/^--@bullmq-keys (\w+)$/gm, (_, script: string) => bullmqKeyNamesAsLua(script))
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

/**
 * Sends one EVALSHA, followed by an EVAL if the server does not know the script. Resolves with the raw reply.
 */
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

function readLua(name: string): string {
  return readFileSync(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}
