/**
 * The Lua scripts, read once at start, run by their SHA-1. A server that does not know a script (first use, SCRIPT
 * FLUSH, failover) says NOSCRIPT before running anything, and is sent the text.
 *
 * `enqueue.lua` has a place for BullMQ's own add scripts; they are put in from the installed package, unchanged.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Redis } from 'ioredis'
import { addKeyNames, type addScripts } from '../../bullmq/job-encoder.ts'

export interface Script {
  readonly text: string
  readonly sha: string
}

type ScriptArgument = string | number | Buffer

const bullmqScripts = createRequire(import.meta.url)('bullmq/dist/cjs/scripts') as Record<
  string,
  { content: string; keys: number }
>

export const enqueueScript = load('enqueue')
export const readJobsScript = load('read-jobs')
export const listJobsScript = load('list-jobs')
export const inspectStreamsScript = load('inspect-streams')
export const bullmqCommandsScript = load('run-bullmq-commands')
export const recoverStalledScript = load('recover-stalled')
export const putSubscriptionScript = load('put-subscription')

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

function load(name: string): Script {
  const text = read(name)
    .replace(/^--@include ([\w-]+)$/gm, (_, included: string) => read(included))
    .replace(/^--@bullmq (\w+)$/gm, (_, script: string) => asFunction(script))
    .replace(/^--@bullmq-keys (\w+)$/gm, (_, script: string) => namesOfKeys(script))
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

function read(name: string): string {
  return readFileSync(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}

/**
 * A script of BullMQ as a Lua function of KEYS and ARGV, which shadow the globals that it was written for; its libraries
 * are `bullmqRedis`, `bullmqCmsgpack` and `bullmqCjson`, which the script around it defines. Called, `bullmq_<name>` gives
 * that function. Its own helper functions are moved out in front of it, unchanged and in their order: they use nothing of
 * it but `rcall`, and made anew for every job of a batch, or for a script that no job of the batch needs, they would cost
 * a tenth of Redis' time.
 */
function asFunction(name: string): string {
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
function namesOfKeys(name: string): string {
  const names = addKeyNames(name as (typeof addScripts)[number])
  return `local bullmq_${name}Keys = {${names.map((key) => `'${key}'`).join(', ')}}`
}

/** Throws for a script that BullMQ does not have. */
export function bullmqScript(name: string): { content: string; keys: number } {
  const script = bullmqScripts[name]
  if (script) return script
  throw new Error(`bullmq has no script ${name}: the installed version is not the one this was built for`)
}
