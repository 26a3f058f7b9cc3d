/**
 * The commands that are named in the Lua of the scripts that ran, BullMQ's within ours included: each has to be in the rule,
 * and each has to have been run by the very script that names it, or stands here with the reason why it cannot be.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Test } from 'tap'
import { loadScript } from '../../../src/redis/scripts/run-script.ts'
import { allowed, type Seen } from './server.ts'

/** What nobody can make a script do from here, and why. */
const UNREACHABLE: Record<string, Record<string, string>> = {
  enqueue: {
    lrange: 'for a Redis before 6.0.6, which has no LPOS',
    sadd: 'the parent of a job that is added',
    scard: 'the same',
  },
  'run-bullmq-commands': {
    sadd: 'the parent of a job with a deduplication: BullMQ refuses to add one that has both',
  },
  updateJobScheduler: {
    hset: 'what it would write, addJobScheduler has written: without that there is no scheduler',
  },
  getCounts: { zcount: 'delayed jobs up to a time: all are counted' },
}

/** What BullMQ sends by itself. */
const DIRECT = ['getCounts', 'updateJobScheduler']

const bullmq = createRequire(import.meta.url)('bullmq/dist/cjs/scripts') as Record<
  string,
  { content: string }
>
/** Every script in the folder, without the fragments that others include. */
const folder = new URL('../../../src/redis/scripts/', import.meta.url)
const sources = new Map(
  readdirSync(folder)
    .filter((file) => file.endsWith('.lua'))
    .map((file) => [file.slice(0, -'.lua'.length), readFileSync(new URL(file, folder), 'utf8')]),
)
const included = new Set(
  [...sources.values()].flatMap((text) =>
    [...text.matchAll(/^--@include ([\w-]+)$/gm)].map(([, name]) => name),
  ),
)
const ownTexts = [...sources.keys()]
  .filter((name) => !included.has(name))
  .map((name) => [name, loadScript(name).text] as const)
const texts = [...ownTexts, ...DIRECT.map((name) => [name, bullmq[name]!.content] as const)]

export function checkScripts(t: Test, seen: Seen['scripts']): void {
  const words = new Set(allowed.map((word) => word.replace(/\|.*/, '')))
  const ran = new Map(seen)
  for (const [name, text] of texts) {
    const sha = createHash('sha1').update(text).digest('hex')
    const commands = ran.get(sha)
    t.ok(commands, `${name} ran`)
    ran.delete(sha)
    const unreachable = UNREACHABLE[name] ?? {}
    const named = commandsOf(text)
    t.same(
      named.filter((command) => !words.has(command) && !(command in unreachable)),
      [],
      `all that ${name} names is in the rule`,
    )
    t.same(
      named.filter((command) => !commands?.has(command)),
      Object.keys(unreachable),
      `${name} has run all that it names, but for what cannot be`,
    )
  }
  t.same([...ran.keys()], [], 'no other script ran')
}

/** In a call, or as what BullMQ calls `pushCmd`. */
function commandsOf(text: string): string[] {
  const calls = text.matchAll(/(?:\brcall|\bredis\.p?call|(?<![\w.])call)\(\s*([^,)]+)/g)
  const named = [...calls].flatMap(([, first = '']) => {
    const quoted = [...first.matchAll(/['"](\w+)['"]/g)].map(([, command]) => command!)
    // What memoized-redis.lua passes on was named by the script that it serves.
    if (quoted.length > 0 || ['pushCmd', 'command'].includes(first)) return quoted
    throw new Error(`which command is ${first}?`)
  })
  const pushes = [...text.matchAll(/['"]([LR]PUSH)['"]/g)].map(([, command]) => command!)
  return [...new Set([...named, ...pushes].map((command) => command.toLowerCase()))].sort()
}
