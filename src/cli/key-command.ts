/** `npm run key -- create|rotate|revoke|list`: what its words mean, apart from the process that says them. */
import { parseArgs } from 'node:util'
import { type Rate, type Scope, scopes } from '../auth/access.ts'
import {
  addKey,
  addSecret,
  createApiKeySecret,
  KEY_ID_PATTERN,
  type KeyFile,
  KeyFileError,
  QUEUE_GLOB_PATTERN,
  readKeyFile,
  revoke,
  writeKeyFile,
} from '../auth/key-file.ts'

const usage = `Usage:
  npm run key -- create --id mailer --scopes enqueue,read --queues 'emails,img-*' [--rate 100/s]
  npm run key -- rotate --id mailer            a second secret; both hold until one is revoked
  npm run key -- revoke --id mailer [--secret 1f3a…]   the key, or one of its secrets
  npm run key -- list

  scopes   ${scopes.join(', ')}
  queues   names, with * for any characters; '*' for all
  rate     most requests in a time: 100/s, 6000/min, 10/h; counted by each replica
`

/** Does what the words say to the file; returns what to print. Throws a KeyFileError with what is wrong. */
export async function runKeyCommand(words: string[], path: string, now: Date): Promise<string> {
  const { command, options } = parse(words)
  const file = (await readKeyFile(path)) ?? { version: 1, keys: [] }
  const time = now.toISOString()
  if (command === 'list') return list(file)
  const id = required(options, 'id', new RegExp(KEY_ID_PATTERN))
  if (command === 'revoke') {
    await writeKeyFile(path, revoke(file, id, options['secret'], time))
    return `Revoked in ${path}. Running services see it within two seconds.\n`
  }
  const secret = createApiKeySecret(id)
  const changed =
    command === 'create'
      ? addKey(file, { id, ...grantsOf(options) }, secret, time)
      : addSecret(file, id, secret, time)
  await writeKeyFile(path, changed)
  return `${secret}\n\nShown this once; ${path} keeps its SHA-256. Send it as: Authorization: Bearer ${secret}\n`
}

const commands = ['create', 'rotate', 'revoke', 'list']

function parse(words: string[]) {
  const text = { type: 'string' } as const
  try {
    const { values, positionals } = parseArgs({
      args: words,
      allowPositionals: true,
      options: { id: text, scopes: text, queues: text, rate: text, secret: text },
    })
    const [command = ''] = positionals
    if (positionals.length !== 1 || !commands.includes(command)) throw new KeyFileError(usage)
    return { command, options: values as Options }
  } catch (error) {
    throw error instanceof KeyFileError ? error : new KeyFileError(`${(error as Error).message}\n\n${usage}`)
  }
}

type Options = Record<string, string | undefined>

function required(options: Options, name: string, pattern: RegExp): string {
  const value = options[name]
  if (value !== undefined && pattern.test(value)) return value
  throw new KeyFileError(`--${name} ${value === undefined ? 'is missing' : `must match ${pattern.source}`}`)
}

function grantsOf(options: Options): { scopes: Scope[]; queues: string[]; rate: Rate | null } {
  const asked = required(options, 'scopes', /./).split(',')
  const unknown = asked.find((scope) => !scopes.includes(scope as Scope))
  if (unknown !== undefined) {
    throw new KeyFileError(`${unknown} is no scope: there are ${scopes.join(', ')}`)
  }
  const queues = required(options, 'queues', /./).split(',')
  const glob = new RegExp(QUEUE_GLOB_PATTERN)
  const odd = queues.find((queue) => !glob.test(queue))
  if (odd !== undefined)
    throw new KeyFileError(`${odd} is no pattern of a queue: it must match ${glob.source}`)
  return { scopes: asked as Scope[], queues, rate: rateOf(options['rate']) }
}

const units: Record<string, number> = { s: 1_000, min: 60_000, h: 3_600_000 }

function rateOf(text: string | undefined): Rate | null {
  if (text === undefined) return null
  const [, max, unit] = /^([1-9]\d{0,8})\/(s|min|h)$/.exec(text) ?? []
  if (max === undefined) throw new KeyFileError(`--rate ${text} is not of the form 100/s, 6000/min or 10/h`)
  return { max: Number(max), windowMs: units[unit!]! }
}

function list({ keys }: KeyFile): string {
  if (keys.length === 0) return 'There are no keys: the service serves loopback only, and anyone there.\n'
  const lines = keys.map(({ id, scopes: granted, queues, rate, secrets, createdAt, revokedAt }) => {
    const state =
      revokedAt === null ? secrets.map(({ sha256 }) => sha256.slice(0, 8)).join(' ') : `revoked ${revokedAt}`
    const limit = rate === null ? '-' : `${rate.max} in ${rate.windowMs / 1_000} s`
    return [id, granted.join(','), queues.join(','), limit, createdAt, state]
  })
  const table = [['ID', 'SCOPES', 'QUEUES', 'RATE', 'CREATED', 'SECRETS'], ...lines]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  return `${table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')}\n`
}
