/** Turns BullMQ's own Lua scripts, from the installed package, into text that our scripts can include. */
import { createRequire } from 'node:module'
import { addKeyNames, type addScripts } from './job-encoder.ts'

const bullmqScripts = createRequire(import.meta.url)('bullmq/dist/cjs/scripts') as Record<
  string,
  { content: string; keys: number }
>

/**
 * Wraps a script of BullMQ into `bullmq_<name>()`, which returns the script as a Lua function of KEYS and ARGV. The
 * including script defines the libraries that BullMQ's script sees: `bullmqRedis`, `bullmqCmsgpack` and `bullmqCjson`.
 *
 * BullMQ's local helper functions move out in front of the script, unchanged and in order. They depend on nothing but
 * `rcall`. Creating them again for every job of a batch, or for a script that no job of the batch needs, would cost a
 * tenth of Redis' time.
 */
export function bullmqScriptAsLua(name: string): string {
  const helpers: string[] = []
  const body = bullmqScript(name).content.replace(
    /^local (?:function \w|\w+ = function\b)[\s\S]*?^end$/gm,
    (helper) => {
      helpers.push(helper)
      return ''
    },
  )
  return [
    // The prefix is needed because some helpers of BullMQ have the name of a script.
    `local function bullmq_${name}()`,
    'local redis, cmsgpack, cjson = bullmqRedis, bullmqCmsgpack, bullmqCjson',
    'local rcall = redis.call',
    ...helpers,
    'return function(KEYS, ARGV)',
    body,
    'end',
    'end',
  ].join('\n')
}

/** Defines `bullmqScripts`: the table of the functions that `bullmqScriptAsLua` defines for `names`, in the same order. */
export function bullmqListAsLua(names: readonly string[]): string {
  return `local bullmqScripts = {${names.map((name) => `bullmq_${name}`).join(', ')}}`
}

/** Defines `bullmq_<name>Keys`: the names of the keys that an add script takes, in its order. */
export function bullmqKeyNamesAsLua(name: string): string {
  const names = addKeyNames(name as (typeof addScripts)[number])
  return `local bullmq_${name}Keys = {${names.map((key) => `'${key}'`).join(', ')}}`
}

/** The text of a script and how many keys it takes. Throws if BullMQ has no script of that name. */
export function bullmqScript(name: string): { content: string; keys: number } {
  const script = bullmqScripts[name]
  if (script) return script
  throw new Error(`bullmq has no script ${name}: install the version of bullmq that package.json pins`)
}
