/**
 * Without REDIS_URL, the service runs its own redis-server: on a unix socket that only this user can open,
 * with its append-only file in DATA_DIR, so that jobs survive a restart. The server ends with the service. A
 * server left by a killed service is taken over; a folder that a running service uses is refused.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { open, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { repairAppendOnlyFile } from './append-only-file.ts'
import { acquireLock, isAlive, recordServer, releaseLock } from './data-dir-lock.ts'
import { makePrivate } from './private-folder.ts'
import { findRedisBinary, type RedisBinary } from './redis-binary.ts'
import { isServerListening, isServerReady, socketPath } from './server-socket.ts'

export interface EmbeddedRedis {
  socket: string
  /** Process id of the redis-server. */
  pid: number
  version: string
  /** Stops the server after it has written everything to disk. Idempotent. */
  close(): Promise<void>
}

export interface EmbeddedOptions {
  dataDir: string
  /** Folder for a downloaded redis-server. */
  cacheDir: string
  /** PATH that is searched for redis-server. */
  path: string
  /** For tests: nothing is written to disk. */
  ephemeral?: boolean
  /** More arguments for redis-server. */
  args?: string[]
  log(message: string): void
  /** `log`, unless given. */
  warn?(message: string): void
}

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000

interface Server {
  pid: number
  /** `undefined` if the server was taken over. */
  child: ChildProcess | undefined
}

/** Rejects if no redis-server can be found or started, or if another service uses the folder. */
export async function startEmbeddedRedis(options: EmbeddedOptions): Promise<EmbeddedRedis> {
  const dataDir = resolve(options.dataDir)
  await makePrivate(dataDir, options.warn ?? options.log)
  const lockFile = join(dataDir, 'redis.lock')
  const socket = await socketPath(dataDir)
  const binary = await findRedisBinary({
    cacheDir: options.cacheDir,
    path: options.path,
    onFetch: () =>
      options.log('No redis-server on the PATH: downloading one from the distribution (once, about 3 MB)'),
  })
  const previous = await acquireLock(lockFile, () => isServerListening(socket))
  let server: Server
  try {
    if (previous && isAlive(previous.server) && (await isServerListening(socket))) {
      server = await takeOver(previous.server, socket, options)
    } else {
      server = await spawnServer(binary, socket, dataDir, options)
    }
    await recordServer(lockFile, server.pid)
  } catch (error) {
    await releaseLock(lockFile)
    throw error
  }

  let closing: Promise<void> | undefined
  function close(): Promise<void> {
    closing ??= stopServer(server).then(() => releaseLock(lockFile))
    return closing
  }
  return { socket, pid: server.pid, version: binary.version, close }
}

async function takeOver(pid: number, socket: string, { log }: EmbeddedOptions): Promise<Server> {
  log(`Taking over the redis-server (process ${pid}) of a Sluice that was killed`)
  // The server may still be loading its data.
  await waitUntil('redis-server to start', () => isServerReady(socket), START_TIMEOUT_MS)
  return { pid, child: undefined }
}

async function spawnServer(
  binary: RedisBinary,
  socket: string,
  dataDir: string,
  options: EmbeddedOptions,
): Promise<Server> {
  await rm(socket, { force: true })
  if (!options.ephemeral) await repairAppendOnlyFile(binary, dataDir)
  const logFile = join(dataDir, 'redis.log')
  const output = await open(logFile, 'a', 0o600)
  // Detached from the terminal's process group: Ctrl-C must not end Redis before the service has sent its
  // last commands.
  const child = spawn(binary.path, serverArguments(socket, dataDir, options), {
    stdio: ['ignore', output.fd, output.fd],
    env: { ...process.env, ...binary.env },
    detached: true,
  })
  const spawnFailed = new Promise<never>((_, reject) => child.once('error', reject))
  // The service alone decides how long this process lives; `close` ends the server.
  child.unref()
  await output.close()
  await Promise.race([
    spawnFailed,
    waitUntil(
      `redis-server to start; see ${logFile}`,
      () => {
        if (hasExited(child))
          throw new Error(`redis-server ended with code ${child.exitCode}; see ${logFile}`)
        return isServerReady(socket)
      },
      START_TIMEOUT_MS,
    ),
  ])
  return { pid: child.pid!, child }
}

function serverArguments(
  socket: string,
  dataDir: string,
  { ephemeral = false, args = [] }: EmbeddedOptions,
): string[] {
  const persistence = ephemeral ? ['--appendonly', 'no'] : ['--appendonly', 'yes', '--appendfsync', 'always']
  const listen = ['--port', '0', '--unixsocket', socket, '--unixsocketperm', '700']
  const memory = ['--maxmemory-policy', 'noeviction']
  return [...listen, '--dir', dataDir, '--save', '', ...persistence, ...memory, ...args]
}

async function stopServer({ pid, child }: Server): Promise<void> {
  const hasEnded = () => !isAlive(pid) || hasExited(child)
  if (!hasEnded()) process.kill(pid, 'SIGTERM')
  await waitUntil('redis-server to stop', hasEnded, STOP_TIMEOUT_MS).catch(async () => {
    // A server that cannot save refuses to end. Acknowledged jobs are in the append-only file already.
    process.kill(pid, 'SIGKILL')
    await waitUntil('redis-server to stop', hasEnded, STOP_TIMEOUT_MS)
  })
}

function hasExited(child: ChildProcess | undefined): boolean {
  return child !== undefined && (child.exitCode !== null || child.signalCode !== null)
}

/** Rejects after `timeoutMs` with an error that names `event`. */
async function waitUntil(
  event: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs / 1_000} s for ${event}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
