/**
 * Without REDIS_URL: a private redis-server on a unix socket that only this user can open, with its append-only file in
 * DATA_DIR, so that jobs survive a restart. It ends with the service. One that a killed service left behind is taken
 * over; one that belongs to a service that still runs is refused.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { repairAppendOnlyFile } from './append-only-file.ts'
import { findRedisBinary } from './redis-binary.ts'

export interface EmbeddedRedis {
  socket: string
  version: string
  /** Ends the server after it has written everything to disk. */
  close(): Promise<void>
}

export interface EmbeddedOptions {
  dataDir: string
  /** Folder for a fetched redis-server. */
  cacheDir: string
  path: string
  /** Set for tests: nothing is written to disk. */
  ephemeral?: boolean
  /** Further lines for redis-server's command line. */
  args?: string[]
  log(message: string): void
}

/** Longest path of a unix socket on Linux (108) and macOS (104), less the ending nul. */
const MAX_SOCKET_PATH = 103
const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000

interface Lock {
  owner: number
  server: number
}

export async function startEmbeddedRedis(options: EmbeddedOptions): Promise<EmbeddedRedis> {
  const dataDir = resolve(options.dataDir)
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  const lockFile = join(dataDir, 'redis.lock')
  const socket = await socketPath(dataDir)
  const binary = await findRedisBinary({
    cacheDir: options.cacheDir,
    path: options.path,
    onFetch: () =>
      options.log(
        'There is no redis-server on the PATH: fetching one from the distribution (once, about 3 MB)',
      ),
  })
  const previous = await acquire(lockFile, socket)
  let server: number
  let child: ChildProcess | undefined
  try {
    if (previous && isAlive(previous.server) && (await isListening(socket))) {
      server = previous.server
      options.log(`Taking over the redis-server (process ${server}) that an earlier Sluice left behind`)
      // It may still be loading its data.
      await until(() => answers(socket), START_TIMEOUT_MS)
    } else {
      child = await spawnServer(binary, socket, dataDir, options)
      server = child.pid!
    }
    await writeFile(lockFile, JSON.stringify({ owner: process.pid, server } satisfies Lock))
  } catch (error) {
    await rm(lockFile, { force: true })
    throw error
  }

  let closing: Promise<void> | undefined
  async function stop(): Promise<void> {
    const hasEnded = () => !isAlive(server) || hasExited(child)
    if (!hasEnded()) process.kill(server, 'SIGTERM')
    await until(hasEnded, STOP_TIMEOUT_MS).catch(async () => {
      // A server that cannot save refuses to end. What was acknowledged is in the append-only file already.
      process.kill(server, 'SIGKILL')
      await until(hasEnded, STOP_TIMEOUT_MS)
    })
    await rm(lockFile, { force: true })
  }
  return {
    socket,
    version: binary.version,
    close: () => {
      closing ??= stop()
      return closing
    },
  }
}

async function spawnServer(
  binary: { path: string; env: Record<string, string> },
  socket: string,
  dataDir: string,
  { ephemeral = false, args = [] }: EmbeddedOptions,
): Promise<ChildProcess> {
  await rm(socket, { force: true })
  if (!ephemeral) await repairAppendOnlyFile(binary, dataDir)
  const logFile = join(dataDir, 'redis.log')
  const output = await open(logFile, 'a', 0o600)
  const persistence = ephemeral ? ['--appendonly', 'no'] : ['--appendonly', 'yes', '--appendfsync', 'always']
  const child = spawn(
    binary.path,
    [
      ...['--port', '0', '--unixsocket', socket, '--unixsocketperm', '700', '--dir', dataDir],
      ...['--save', '', ...persistence, '--maxmemory-policy', 'noeviction', ...args],
    ],
    // A group of its own: Ctrl-C in the terminal must not end Redis before the service has sent what it holds.
    { stdio: ['ignore', output.fd, output.fd], env: { ...process.env, ...binary.env }, detached: true },
  )
  const failed = new Promise<never>((_, reject) => child.once('error', reject))
  // It is ours until `close`; the service alone decides how long the process lives.
  child.unref()
  await output.close()
  await Promise.race([
    failed,
    until(async () => {
      if (hasExited(child)) throw new Error(`redis-server ended with code ${child.exitCode}; see ${logFile}`)
      return answers(socket)
    }, START_TIMEOUT_MS),
  ])
  return child
}

function hasExited(child: ChildProcess | undefined): boolean {
  return child !== undefined && (child.exitCode !== null || child.signalCode !== null)
}

/** In the data folder, or where that path is too long for a socket, in the temporary one. */
async function socketPath(dataDir: string): Promise<string> {
  const beside = join(dataDir, 'redis.sock')
  if (Buffer.byteLength(beside) <= MAX_SOCKET_PATH) return beside
  const folder = join(tmpdir(), `sluice-${createHash('sha1').update(dataDir).digest('hex').slice(0, 16)}`)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  // The name can be guessed: a folder that somebody else made there first is not to be trusted with a socket.
  const { uid, mode } = await stat(folder)
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0)
    throw new Error(`${folder} belongs to somebody else`)
  return join(folder, 'redis.sock')
}

/**
 * Takes the lock of the folder, and returns that of an owner who is gone. Throws when the folder is in use. Creating the
 * file is what decides between two that start at once.
 */
async function acquire(lockFile: string, socket: string): Promise<Lock | undefined> {
  const mine = JSON.stringify({ owner: process.pid, server: 0 } satisfies Lock)
  let previous: Lock | undefined
  for (let tries = 0; tries < 2; tries++) {
    try {
      await writeFile(lockFile, mine, { flag: 'wx' })
      return previous
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    previous = parseLock(await readFile(lockFile, 'utf8').catch(() => ''))
    if (previous && isAlive(previous.owner)) {
      // In a container the process that wrote it may have had our own number; then its server tells whether it lives.
      const isSelf = previous.owner === process.pid
      if (!isSelf || previous.server === 0 || (isAlive(previous.server) && (await isListening(socket)))) {
        throw new Error(
          `${dirname(lockFile)} is in use by another Sluice (process ${previous.owner}). ` +
            'Stop it, or give this one its own DATA_DIR or a REDIS_URL.',
        )
      }
    }
    await rm(lockFile, { force: true })
  }
  throw new Error('The data folder was taken by another Sluice that started at the same time.')
}

function parseLock(text: string): Lock | undefined {
  try {
    return JSON.parse(text) as Lock
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Whether a server on the socket says PONG; while it loads its data it does not. */
async function answers(socket: string): Promise<boolean> {
  return (await ping(socket)).startsWith('+PONG')
}

async function isListening(socket: string): Promise<boolean> {
  return (await ping(socket)) !== ''
}

/** What a server on the socket says to PING; nothing where there is none. */
function ping(socket: string): Promise<string> {
  return new Promise((done) => {
    const connection = createConnection(socket)
    const finish = (reply: string) => {
      connection.destroy()
      done(reply)
    }
    connection.once('connect', () => connection.write('PING\r\n'))
    connection.once('data', (data) => finish(data.toString()))
    connection.once('error', () => finish(''))
    connection.setTimeout(1_000, () => finish(''))
  })
}

async function until(condition: () => boolean | Promise<boolean>, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline)
      throw new Error(`redis-server did not start or stop within ${timeoutMs / 1000} s`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
