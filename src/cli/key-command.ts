/** The command `key`: creates, rotates, revokes and lists API keys. A secret is printed once and only its SHA-256 is kept. */
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
} from '../auth/key-file.ts'
import { updateKeyFile } from '../auth/key-file-update.ts'
import { loadConfig } from '../config/load.ts'
import type { CliCommand } from './cli-command.ts'

const usage = `Usage:
  npm run key -- create --id mailer --scopes enqueue,read --queues 'emails,img-*' [--rate 100/s]
  npm run key -- rotate --id mailer            add a second secret; both are valid until one is revoked
  npm run key -- revoke --id mailer [--secret 1f3a…]   revoke the key, or one of its secrets
  npm run key -- list

  scopes   ${scopes.join(', ')}
  queues   names, in which * matches any characters; '*' for all queues; \\ before * , or \\ for the character itself
  rate     most requests per time, counted by each replica: 100/s, 6000/min, 10/h
`

export const keyCommand: CliCommand = {
  name: 'key',
  summary: 'Create, rotate, revoke and list API keys',
  usage,
  async run(args, { env, print, now }) {
    print(await runKeyCommand(args, loadConfig(env).API_KEYS_FILE, now()))
  },
}

/** Runs the action in `args` on the key file at `path` and returns what to print. Rejects with a KeyFileError. */
export async function runKeyCommand(args: string[], path: string, now: Date): Promise<string> {
  const { action, options } = parse(args)
  const time = now.toISOString()
  if (action === 'list') return formatKeys(await readKeyFile(path))
  const id = required(options, 'id', new RegExp(KEY_ID_PATTERN))
  if (action === 'revoke') {
    await updateKeyFile(path, (file) => revoke(file, id, options['secret'], time))
    return `Revoked in ${path}. Running services apply it within two seconds.\n`
  }
  const secret = createApiKeySecret(id)
  if (action === 'create') {
    const grants = parseGrants(options)
    await updateKeyFile(path, (file) => addKey(file, { id, ...grants }, secret, time))
  } else {
    await updateKeyFile(path, (file) => addSecret(file, id, secret, time))
  }
  return `${secret}\n\nThis secret is shown only once; ${path} keeps its SHA-256. Send it as: Authorization: Bearer ${secret}\n`
}

const actions = ['create', 'rotate', 'revoke', 'list']

function parse(args: string[]) {
  const text = { type: 'string' } as const
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { id: text, scopes: text, queues: text, rate: text, secret: text },
    })
    const [action = ''] = positionals
    if (positionals.length === 0) throw new KeyFileError(usage)
    if (positionals.length > 1 || !actions.includes(action))
      throw new KeyFileError(
        `${positionals.join(' ')} is not an action. Choose from: ${actions.join(', ')}\n\n${usage}`,
      )
    return { action, options: values as Options }
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

function parseGrants(options: Options): { scopes: Scope[]; queues: string[]; rate: Rate | null } {
  const requested = required(options, 'scopes', /./).split(',')
  const unknown = requested.find((scope) => !scopes.includes(scope as Scope))
  if (unknown !== undefined) {
    throw new KeyFileError(`${unknown} is not a scope. Choose from: ${scopes.join(', ')}`)
  }
  const queues = splitQueues(required(options, 'queues', /./))
  return { scopes: requested as Scope[], queues, rate: parseRate(options['rate']) }
}

/** Splits at each comma that no backslash escapes. The patterns keep their escapes. */
function splitQueues(text: string): string[] {
  const queues = text.split(/(?<=(?:^|[^\\])(?:\\\\)*),/)
  const glob = new RegExp(QUEUE_GLOB_PATTERN)
  for (const queue of queues) {
    const name = JSON.stringify(queue)
    if (!glob.test(queue))
      throw new KeyFileError(`${name} is not a queue pattern: it must match ${glob.source}`)
    // `a, b` is a mistake, which would name a queue that no key was meant for.
    if (/^\s|(?<!\\)\s$/.test(queue))
      throw new KeyFileError(`${name} starts or ends with a space. Remove it, or put a backslash before it.`)
  }
  return queues
}

const unitMs: Record<string, number> = { s: 1_000, min: 60_000, h: 3_600_000 }

function parseRate(text: string | undefined): Rate | null {
  if (text === undefined) return null
  const [, max, unit] = /^([1-9]\d{0,8})\/(s|min|h)$/.exec(text) ?? []
  if (max === undefined) throw new KeyFileError(`--rate ${text} must have the form 100/s, 6000/min or 10/h`)
  return { max: Number(max), windowMs: unitMs[unit!]! }
}

function formatKeys({ keys }: KeyFile = { version: 1, keys: [] }): string {
  if (keys.length === 0)
    return 'There are no API keys: the service listens on loopback only and accepts every request.\n'
  const rows = keys.map(({ id, scopes: granted, queues, rate, secrets, createdAt, revokedAt }) => {
    const state =
      revokedAt === null ? secrets.map(({ sha256 }) => sha256.slice(0, 8)).join(' ') : `revoked ${revokedAt}`
    const limit = rate === null ? '-' : `${rate.max} in ${rate.windowMs / 1_000} s`
    return [id, granted.join(','), queues.join(','), limit, createdAt, state]
  })
  return formatTable([['ID', 'SCOPES', 'QUEUES', 'RATE', 'CREATED', 'SECRETS'], ...rows])
}

function formatTable(rows: string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const formatRow = (row: string[]) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')
  return `${rows.map((row) => formatRow(row).trimEnd()).join('\n')}\n`
}
