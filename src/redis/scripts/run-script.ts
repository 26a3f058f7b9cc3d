/**
 * Loads the Lua scripts beside this file and runs them by SHA-1. A server that does not know a script (first use, SCRIPT
 * FLUSH, failover) replies NOSCRIPT before it runs anything, and then receives the text.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Redis } from 'ioredis'
import { bullmqKeyNamesAsLua, bullmqListAsLua, bullmqScriptAsLua } from '../../bullmq/script-source.ts'

export interface Script {
  readonly text: string
  readonly sha: string
  /** BullMQ's scripts that it includes, in order. */
  readonly bullmqScripts: string[]
}

type ScriptArgument = string | number | Buffer

/**
 * Reads `<name>.lua` from this folder and expands its directives. Call it once, when the module loads.
 *   --@include x      a fragment of ours, `x.lua`, with its folder
 *   --@bullmq x       a script of BullMQ, unchanged, from the installed package
 *   --@bullmq-keys x  the names of the keys of such a script
 *   --@bullmq-list    a table of the included scripts of BullMQ, in order
 *   --@constants      `constants`, as Lua locals
 */
export function loadScript(name: string, constants: Record<string, number> = {}): Script {
  const source = readLua(name)
  const bullmqScripts = [...source.matchAll(/^--@bullmq (\w+)$/gm)].map(([, script]) => script!)
  const text = source
    .replace(/^--@include ([\w/-]+)$/gm, (_, included: string) => readLua(included))
    .replace(/^--@bullmq (\w+)$/gm, (_, script: string) => bullmqScriptAsLua(script))
    .replace(/^--@bullmq-keys (\w+)$/gm, (_, script: string) => bullmqKeyNamesAsLua(script))
    .replace(/^--@bullmq-list$/gm, () => bullmqListAsLua(bullmqScripts))
    .replace(/^--@constants$/m, () => asLuaLocals(constants))
  return { text, sha: sha1(text), bullmqScripts }
}

function asLuaLocals(constants: Record<string, number>): string {
  return `local ${Object.keys(constants).join(', ')} = ${Object.values(constants).join(', ')}`
}

/** Sends one EVALSHA, followed by an EVAL if the server does not know the script. Resolves with the raw reply. */
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

/** As {@link runScript}; every text in the reply is a Buffer. It may be a view of a larger one, so do not keep it. */
export async function runScriptForBytes(
  client: Redis,
  script: Script,
  keys: string[],
  args: ScriptArgument[],
): Promise<unknown> {
  try {
    return await client.callBuffer('EVALSHA', script.sha, keys.length, ...keys, ...args)
  } catch (error) {
    if (!(error as Error).message.startsWith('NOSCRIPT')) throw error
    return client.callBuffer('EVAL', script.text, keys.length, ...keys, ...args)
  }
}

/** Too small for a file of its own. */
const PROBE: Script = { text: 'return 1', sha: sha1('return 1'), bullmqScripts: [] }

/** Runs the smallest script, in the way in which every script is run. Rejects as Redis does. */
export async function probeScripts(client: Redis): Promise<void> {
  await runScript(client, PROBE, [], [])
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex')
}

function readLua(name: string): string {
  return readFileSync(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}
