/** BullMQ's own Lua scripts, taken from the installed package, as text that our scripts can include. */
import { createRequire } from 'node:module'
import { addKeyNames, type addScripts } from './job-encoder.ts'

const bullmqScripts = createRequire(import.meta.url)('bullmq/dist/cjs/scripts') as Record<
  string,
  { content: string; keys: number }
>

/**
 * A script of BullMQ as a Lua function of KEYS and ARGV, which shadow the globals that it was written for; its libraries
 * are `bullmqRedis`, `bullmqCmsgpack` and `bullmqCjson`, which the script around it defines. Called, `bullmq_<name>` gives
 * that function. Its own helper functions are moved out in front of it, unchanged and in their order: they use nothing of
 * it but `rcall`, and made anew for every job of a batch, or for a script that no job of the batch needs, they would cost
 * a tenth of Redis' time.
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
    // Prefixed: BullMQ has helpers of the same names as scripts.
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

/** `bullmq_<name>Keys`: the names of the keys that an add script takes. */
export function bullmqKeyNamesAsLua(name: string): string {
  const names = addKeyNames(name as (typeof addScripts)[number])
  return `local bullmq_${name}Keys = {${names.map((key) => `'${key}'`).join(', ')}}`
}

/** Throws for a script that BullMQ does not have. */
export function bullmqScript(name: string): { content: string; keys: number } {
  const script = bullmqScripts[name]
  if (script) return script
  throw new Error(`bullmq has no script ${name}: the installed version is not the one this was built for`)
}
