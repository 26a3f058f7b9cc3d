/**
 * A lock for processes that change one file: a second file beside it, created exclusively, which names its owner. The lock
 * of a process that has ended is removed by the next one. Only a guard file permits the removal, so that of two processes
 * which find the same abandoned lock, the slower one cannot remove the lock of the faster one.
 */
import { randomBytes } from 'node:crypto'
import { open, readFile, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'

export interface FileLock {
  /** Whether this process still holds it. An operator may have removed the file. */
  isHeld(): Promise<boolean>
  release(): Promise<void>
}

/** The lock was not free within the time. */
export class FileLockError extends Error {
  readonly owner: LockOwner | undefined
  constructor(lockFile: string, owner: LockOwner | undefined) {
    super(`${lockFile} is locked`)
    this.name = 'FileLockError'
    this.owner = owner
  }
}

/** The content of a lock file. */
export interface LockOwner {
  pid: number
  /** Process ids mean nothing on another machine, or in another container. */
  host: string
  /** Differs for every lock that was ever taken. */
  nonce: string
}

const RETRY_MS = 25
/** A file without a readable owner is being written, or its process ended while it wrote. */
const UNREADABLE_MAX_AGE_MS = 2_000
/** The guard is held for two file operations. */
const GUARD_MAX_AGE_MS = 5_000

/** Waits up to `waitMs` for the lock. Rejects with a {@link FileLockError}, or with the error of the file system. */
export async function lockFile(path: string, waitMs: number): Promise<FileLock> {
  const own: LockOwner = { pid: process.pid, host: hostname(), nonce: randomBytes(12).toString('hex') }
  const deadline = performance.now() + waitMs
  while (!(await createExclusively(path, JSON.stringify(own)))) {
    if (await isAbandoned(path)) await removeAbandoned(path)
    if (performance.now() > deadline) throw new FileLockError(path, await readOwner(path))
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS * (0.5 + Math.random())))
  }
  const isHeld = async () => (await readOwner(path))?.nonce === own.nonce
  return {
    isHeld,
    async release() {
      if (await isHeld()) await rm(path, { force: true })
    },
  }
}

/** Returns false if the file exists. */
async function createExclusively(path: string, text: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx', 0o600)
    await file.writeFile(text).finally(() => file.close())
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  }
}

async function isAbandoned(path: string): Promise<boolean> {
  const owner = await readOwner(path)
  if (owner === undefined) return (await ageMs(path)) > UNREADABLE_MAX_AGE_MS
  return owner.host === hostname() && !isRunning(owner.pid)
}

async function removeAbandoned(path: string): Promise<void> {
  const guard = `${path}.takeover`
  if (!(await createExclusively(guard, `${process.pid}`))) {
    // Its process ended before it could remove the guard.
    if ((await ageMs(guard)) > GUARD_MAX_AGE_MS) await rm(guard, { force: true })
    return
  }
  try {
    // Another process may have removed the abandoned lock before this one had the guard.
    if (await isAbandoned(path)) await rm(path, { force: true })
  } finally {
    await rm(guard, { force: true })
  }
}

/** `undefined`: the file does not exist, or its content is not complete. */
async function readOwner(path: string): Promise<LockOwner | undefined> {
  try {
    const { pid, host, nonce } = JSON.parse(await readFile(path, 'utf8')) as Partial<LockOwner>
    if (typeof pid !== 'number' || typeof host !== 'string' || typeof nonce !== 'string') return undefined
    return { pid, host, nonce }
  } catch {
    return undefined
  }
}

async function ageMs(path: string): Promise<number> {
  const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
  return Date.now() - mtimeMs
}

/** Whether a process with this id exists, even one of another user. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
