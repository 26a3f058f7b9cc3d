/**
 * The commands in the Lua of every script, including BullMQ's scripts within ours. The ACL rule has to allow
 * each of them, and the script has to have run it, unless it is listed here with the reason why it cannot.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type { Test } from 'tap'
import { enqueueConstants } from '../../../src/redis/scripts/enqueue-layout.ts'
import { loadScript } from '../../../src/redis/scripts/run-script.ts'
import { allowed, type Seen } from './server.ts'

/** Commands that no request can make a script run, and why. */
const UNREACHABLE: Record<string, Record<string, string>> = {
  enqueue: {
    lrange: 'for a Redis before 6.0.6, which has no LPOS',
    sadd: 'links an added job to its parent, which the service does not accept',
    scard: 'counts the children of that parent',
  },
  'run-bullmq-commands': {
    sadd: 'links a deduplicated job to its parent: BullMQ refuses to add a job that has both',
  },
  'recover-stalled': {
    hdel: 'resets a counter of a job that is not an integer; run-bullmq-commands runs the same lines',
    hexists: 'checks a job before it is settled, which this script does not do',
  },
  updateJobScheduler: {
    hset: 'addJobScheduler has written the field already; without it there is no scheduler',
  },
  getCounts: { zcount: 'counts delayed jobs up to a time; the service counts all' },
}

/** Scripts that BullMQ itself sends. */
const DIRECT = ['getCounts', 'updateJobScheduler']

const bullmq = createRequire(import.meta.url)('bullmq/dist/cjs/scripts') as Record<
  string,
  { content: string }
>
const folder = 'src/redis/scripts'
const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.lua'))
  .map((file) => [file.replace(/\.lua$/, ''), readFileSync(join(folder, file), 'utf8')] as const)
const isFragment = (name: string) => sources.some(([, text]) => text.includes(`--@include ${name}\n`))
const ownTexts = sources
  .filter(([name]) => !isFragment(name))
  .map(([name]) => [name, loadScript(name, name === 'enqueue' ? enqueueConstants : {}).text] as const)
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
      `the rule allows every command in ${name}`,
    )
    t.same(
      named.filter((command) => !commands?.has(command)),
      Object.keys(unreachable),
      `${name} ran every command that it can`,
    )
  }
  // The probe of readiness, which uses no command.
  ran.delete(createHash('sha1').update('return 1').digest('hex'))
  t.same([...ran.keys()], [], 'no other script ran')
}

/** Commands in a call, or in BullMQ's variable `pushCmd`. */
function commandsOf(text: string): string[] {
  const calls = text.matchAll(/(?:\brcall|\bredis\.p?call|(?<![\w.])call)\(\s*([^,)]+)/g)
  const named = [...calls].flatMap(([, first = '']) => {
    const quoted = [...first.matchAll(/['"](\w+)['"]/g)].map(([, command]) => command!)
    // memoized-redis.lua passes on the command of the script that includes it.
    if (quoted.length > 0 || ['pushCmd', 'command'].includes(first)) return quoted
    throw new Error(`Unknown command expression in a script: ${first}`)
  })
  const pushes = [...text.matchAll(/['"]([LR]PUSH)['"]/g)].map(([, command]) => command!)
  return [...new Set([...named, ...pushes].map((command) => command.toLowerCase()))].sort()
}
