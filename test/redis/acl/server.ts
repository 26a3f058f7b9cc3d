/**
 * A Redis with the user of examples/redis-acl.conf, the service as that user, and a record of the commands it
 * sends. The service connects over TCP and the test over the unix socket, which tells their commands apart.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import type { Test } from 'tap'
import { createApp } from '../../../src/app.ts'
import { eventually, type TestApp, testConfig, untilReady } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { freePort } from '../../helpers/tls-redis.ts'

const FILE = resolve('examples/redis-acl.conf')
export const PASSWORD = 'change-me'

/** The commands that the rule allows. */
export const allowed = (await readFile(FILE, 'utf8'))
  .split('\n')
  .find((line) => line.startsWith('user '))!
  .split(' ')
  .filter((word) => word.startsWith('+'))
  .map((word) => word.slice(1))

const ADMIN = {
  username: 'admin',
  password: 'admin',
  disableClientInfo: true,
  maxRetriesPerRequest: null,
}

export interface Server {
  /** A user with all permissions, connected to the unix socket. */
  admin: Redis
  /** Connection options for BullMQ in a test, as `admin`. */
  connection: typeof ADMIN & { path: string }
  tcp: string
  unix: string
}

/** A Redis with the user of the file; the default user is off. */
export async function startServer(t: Test): Promise<Server> {
  const port = await freePort()
  const redis = await startRedis(['--include', FILE, '--bind', '127.0.0.1', '--port', `${port}`])
  t.teardown(() => redis.stop())
  await redis.client.call('ACL', 'SETUSER', 'admin', 'on', `>${ADMIN.password}`, '~*', '&*', '+@all')
  const { socket } = redis
  const connection = { ...ADMIN, path: socket }
  const admin = new Redis(connection)
  t.teardown(() => admin.disconnect())
  await admin.call('ACL', 'SETUSER', 'default', 'off')
  const user = `sluice:${PASSWORD}`
  return { admin, connection, tcp: `redis://${user}@127.0.0.1:${port}`, unix: `unix://${user}@${socket}` }
}

export async function open(t: Test, url: string, settings: Record<string, string> = {}): Promise<TestApp> {
  const own = { REDIS_URL: url, QUEUE_PREFIX: 'bull', WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' }
  const config = testConfig({ ...own, ...settings })
  const app = await createApp(config, { url }, pino({ level: 'silent' }))
  t.teardown(() => app.http.close())
  await app.http.ready()
  return { ...app, config, prefix: config.QUEUE_PREFIX }
}

export async function openReady(
  t: Test,
  url: string,
  settings: Record<string, string> = {},
): Promise<TestApp> {
  const app = await open(t, url, settings)
  await untilReady(app)
  return app
}

export const aclLog = async ({ admin }: Server) => (await admin.call('ACL', 'LOG')) as unknown[]

export async function send(
  app: TestApp,
  method: 'DELETE' | 'GET' | 'POST' | 'PUT',
  url: string,
  payload?: object,
  headers: Record<string, string> = {},
) {
  const { statusCode, body } = await app.http.inject({
    method,
    url,
    ...(payload && { headers: { 'content-type': 'application/json', ...headers }, payload }),
  })
  return { status: statusCode, body: body === '' ? undefined : JSON.parse(body) }
}

export const post = (app: TestApp, url: string, payload: object, headers: Record<string, string> = {}) =>
  send(app, 'POST', url, payload, headers)

export interface Seen {
  /** Commands of the service, including those of its scripts; some with their subcommand. */
  commands: Set<string>
  /** Commands of each script of the service, by its SHA-1. */
  scripts: Map<string, Set<string>>
}

/** Records commands from now on. The returned function resolves with those up to its call. */
export async function startWatching(t: Test, admin: Redis): Promise<() => Promise<Seen>> {
  const seen: Seen = { commands: new Set(), scripts: new Map() }
  let echoed = false
  const monitor = await admin.monitor()
  t.teardown(() => monitor.disconnect())
  let from = ''
  let script = new Set<string>()
  monitor.on('monitor', (_time: string, args: string[], source: string) => {
    // The commands of a script follow the line that runs it.
    if (source !== 'lua') from = source
    if (from.startsWith('unix:')) {
      echoed ||= args[0] === 'echo'
      return
    }
    const [command = '', subcommand = ''] = args.map((arg) => arg.toLowerCase())
    seen.commands.add(['client', 'memory', 'xinfo'].includes(command) ? `${command}|${subcommand}` : command)
    if (source === 'lua') script.add(command)
    else if (command === 'evalsha' || command === 'eval') {
      const sha = command === 'evalsha' ? args[1]! : shaOf(args[1]!)
      script = seen.scripts.get(sha) ?? new Set()
      seen.scripts.set(sha, script)
    }
  })
  return async () => {
    await admin.echo('end')
    await eventually(() => echoed)
    return seen
  }
}

/** The SHA-1 of a text that MONITOR has quoted. */
function shaOf(quoted: string): string {
  const special: Record<string, string> = { n: '\n', r: '\r', t: '\t', a: '\x07', b: '\b' }
  const text = quoted.replace(/\\(?:x(..)|(.))/g, (_, code: string | undefined, letter: string) =>
    code === undefined ? (special[letter] ?? letter) : String.fromCharCode(Number.parseInt(code, 16)),
  )
  return createHash('sha1').update(text, 'latin1').digest('hex')
}
