/**
 * Real processes as targets of faults: a redis-server with its own data folder, and the service as it ships. Each can be
 * killed, stopped, continued and restarted at the same address.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { repairAppendOnlyFile } from '../../src/redis/embedded/append-only-file.ts'
import { findRedisBinary } from '../../src/redis/embedded/redis-binary.ts'
import type { HttpClient } from './clients.ts'
import type { Launched, Launcher } from './launcher.ts'
import type { Place } from './proxy.ts'
import { until } from './timing.ts'

export interface Process {
  start(): Promise<void>
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  /** SIGSTOP. */
  freeze(): void
  /** SIGCONT. */
  thaw(): void
}

export interface RedisServer extends Process {
  /** Its data folder. */
  readonly dir: string
  readonly place: Place
  readonly url: string
  /** A client for inspection; waits while the server is down. */
  readonly client: Redis
  /** The reply to PING; empty while the server is down. */
  ping(): Promise<string>
  /** Its log, across restarts. */
  output(): string
  /** Resolves at the first PONG from now on, with the time of `performance.now()`. */
  firstPong(): Promise<number>
}

export interface Service extends Process {
  /** `http://127.0.0.1:<port>`; the same after a restart. */
  readonly url: string
  /** SIGTERM; resolves with the exit code. */
  end(): Promise<number | null>
  isReady(): Promise<boolean>
  /** Its output, stdout and stderr, across restarts. */
  output(): string
  /** Resident memory, MB; 0 without /proc. */
  rssMb(): number
  /** Open file descriptors; 0 without /proc. */
  handles(): number
}

export interface RedisOptions {
  /** `appendfsync`; undefined: nothing is written to disk. */
  fsync?: 'always' | 'everysec' | 'no'
  args?: string[]
  env?: Record<string, string>
  /** Listens on TCP with this password, instead of on a unix socket. */
  password?: string
  /** Whether a truncated append-only file is repaired before a restart (`redis-check-aof --fix`); default true. */
  repairsFile?: boolean
}

/** Resolves when the server responds. The caller closes its `client`; the launcher ends the process. */
export async function startRedis(
  { folder, launch }: Launcher,
  { fsync, args = [], env = {}, password, repairsFile = true }: RedisOptions,
): Promise<RedisServer> {
  const binary = await findRedisBinary({
    cacheDir: '.redis',
    path: process.env['PATH'] ?? '',
    onFetch: () => console.error('fetching redis-server from the distribution (once)'),
  })
  const cwd = await folder()
  const port = password === undefined ? 0 : await freePort()
  const place: Place = port === 0 ? { path: join(cwd, 'redis.sock') } : { port }
  const listening = 'path' in place ? ['--unixsocket', place.path] : ['--requirepass', password!]
  const persistence = fsync === undefined ? ['no'] : ['yes', '--appendfsync', fsync]
  const all = [
    ...['--port', `${port}`, '--bind', '127.0.0.1', ...listening, '--dir', cwd, '--save', ''],
    ...['--maxmemory-policy', 'noeviction', '--appendonly', ...persistence, ...args],
  ]
  const client = new Redis({
    ...('path' in place ? { path: place.path } : { port: place.port, host: '127.0.0.1' }),
    ...(password === undefined ? {} : { password }),
    lazyConnect: true,
    maxRetriesPerRequest: null,
    retryStrategy: () => 50,
  })
  client.on('error', () => {})
  const runs: Launched[] = []
  const running = () => runs.at(-1)
  const server: RedisServer = {
    dir: cwd,
    place,
    url: 'path' in place ? `unix://${place.path}` : `redis://:${password}@127.0.0.1:${port}`,
    client,
    async start() {
      if (runs.length > 0 && fsync !== undefined && repairsFile) await repairAppendOnlyFile(binary, cwd)
      runs.push(launch(binary.path, all, { env: { ...binary.env, ...env }, cwd }))
      await server.firstPong()
    },
    kill: async () => void (await running()?.end('SIGKILL')),
    freeze: () => void running()?.child.kill('SIGSTOP'),
    thaw: () => void running()?.child.kill('SIGCONT'),
    ping: () => ping(place),
    output: () => runs.map(({ output }) => output()).join(''),
    async firstPong() {
      await until('Redis answers', async () => /^(\+PONG|-NOAUTH)/.test(await ping(place)), 60_000, 5)
      return performance.now()
    },
  }
  await server.start()
  await client.connect()
  return server
}

/** Shared by all replicas, so that leases of one are valid at the other. */
const SECRET = randomUUID()

/** The command starts the service, as the same process. Resolves when the service is ready. */
export async function startService(
  { folder, launch }: Launcher,
  httpClient: HttpClient,
  [executable, ...args]: string[],
  env: Record<string, string>,
): Promise<Service> {
  // Its own folder, without the `.env`, keys and data of the checkout.
  const cwd = await folder()
  const runs: Launched[] = []
  const last = () => runs.at(-1)!
  const proc = (path: string) => `/proc/${last().child.pid}/${path}`
  let url = ''
  const service: Service = {
    get url() {
      return url
    },
    async start() {
      const PORT = url === '' ? '0' : new URL(url).port
      const base = { PATH: process.env['PATH'] ?? '', NODE_ENV: 'production', REPLICAS: '2', PORT, SECRET }
      const run = launch(executable!, args, { env: { ...base, ...env }, cwd })
      runs.push(run)
      await until('the service listens', () => {
        if (run.child.exitCode !== null) throw new Error(`the service ended: ${run.output()}`)
        const listening = /Server listening at (http:[^"\s]+)/.exec(run.output())
        if (listening) url = listening[1]!
        return listening !== null
      })
    },
    kill: async () => void (await last().end('SIGKILL')),
    end: () => last().end('SIGTERM'),
    freeze: () => void last().child.kill('SIGSTOP'),
    thaw: () => void last().child.kill('SIGCONT'),
    isReady: async () => (await httpClient.ask(`${url}/health/ready`, { timeoutMs: 1_000 })).status === 200,
    output: () => runs.map(({ output }) => output()).join(''),
    rssMb: () => Number(/VmRSS:\s+(\d+)/.exec(read(proc('status')))?.[1] ?? 0) / 1_024,
    handles: () => list(proc('fd')).length,
  }
  await service.start()
  await until('the service is ready', service.isReady)
  return service
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

/** The reply to PING; empty without a server. */
function ping(place: Place): Promise<string> {
  return new Promise((done) => {
    const socket = connect('path' in place ? { path: place.path } : { port: place.port, host: '127.0.0.1' })
    const finish = (reply: string) => {
      socket.destroy()
      done(reply)
    }
    socket.once('connect', () => socket.write('PING\r\n'))
    socket.once('data', (data) => finish(data.toString()))
    socket.once('error', () => finish(''))
    socket.setTimeout(1_000, () => finish(''))
  })
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
