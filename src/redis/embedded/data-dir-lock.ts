/**
 * The lock of a data folder: a file that names the service that owns the folder (0 while its server is
 * starting) and the redis-server that it runs. Creating the file exclusively decides between two services
 * that start at the same time.
 */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

export interface DataDirLock {
  /** Process id of the service. */
  owner: number
  /** Process id of its redis-server; 0 while that is starting. */
  server: number
}

/**
 * Takes the lock. Resolves with the previous lock if its owner ended without releasing it; rejects if the
 * folder is in use. `isServerListening`: whether a server replies on the folder's socket.
 */
export async function acquireLock(
  lockFile: string,
  isServerListening: () => Promise<boolean>,
): Promise<DataDirLock | undefined> {
  let previous: DataDirLock | undefined
  for (let tries = 0; tries < 2; tries++) {
    if (await createLock(lockFile)) return previous
    previous = parseLock(await readFile(lockFile, 'utf8').catch(() => ''))
    if (previous && (await isInUse(previous, isServerListening))) {
      throw new Error(
        `${dirname(lockFile)} is in use by another Sluice (process ${previous.owner}). ` +
          'Stop it, or give this one its own DATA_DIR or a REDIS_URL.',
      )
    }
    await rm(lockFile, { force: true })
  }
  throw new Error(
    `Another Sluice that started at the same time uses ${dirname(lockFile)}. ` +
      'Give this one its own DATA_DIR or a REDIS_URL.',
  )
}

/** Records the redis-server in the lock that this process holds. */
export async function recordServer(lockFile: string, server: number): Promise<void> {
  const lock = JSON.stringify({ owner: process.pid, server } satisfies DataDirLock)
  await writeFile(lockFile, lock, { mode: 0o600 })
}

export async function releaseLock(lockFile: string): Promise<void> {
  await rm(lockFile, { force: true })
}

/** Whether a process with this id exists, even one of another user. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Returns false if the file exists. */
async function createLock(lockFile: string): Promise<boolean> {
  const lock = JSON.stringify({ owner: process.pid, server: 0 } satisfies DataDirLock)
  try {
    await writeFile(lockFile, lock, { flag: 'wx', mode: 0o600 })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  }
}

async function isInUse(
  { owner, server }: DataDirLock,
  isServerListening: () => Promise<boolean>,
): Promise<boolean> {
  if (!isAlive(owner)) return false
  if (owner !== process.pid || server === 0) return true
  // In a container the previous owner may have had our process id. The folder is in use only if its server is.
  return isAlive(server) && (await isServerListening())
}

function parseLock(text: string): DataDirLock | undefined {
  try {
    return JSON.parse(text) as DataDirLock
  } catch {
    return undefined
  }
}
