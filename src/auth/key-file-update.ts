/**
 * Changes API_KEYS_FILE: one process at a time, so that no change is lost, and never half a file. The new file is complete
 * on disk before it takes the place of the old one, and keeps its owner and permissions.
 */
import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, readlink, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { FileLockError, lockFile } from './file-lock.ts'
import { type KeyFile, KeyFileError, readKeyFile } from './key-file.ts'

/** How long a change waits for another process that changes the file. */
export const KEY_FILE_WAIT_MS = 10_000

const NO_KEYS: KeyFile = { version: 1, keys: [] }

/**
 * Replaces the content of the file by `change` of it. Rejects with a {@link KeyFileError} if the file cannot be changed, if
 * another process holds its lock for `waitMs`, or with what `change` throws; the file is unchanged then.
 */
export async function updateKeyFile(
  path: string,
  change: (file: KeyFile) => KeyFile,
  waitMs = KEY_FILE_WAIT_MS,
): Promise<void> {
  await describeFailure(path, async () => {
    // A change that is refused for an empty file creates no folder.
    if ((await readKeyFile(path)) === undefined) change(NO_KEYS)
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    const lockPath = `${path}.lock`
    const lock = await lockFile(lockPath, waitMs)
    try {
      const changed = change((await readKeyFile(path)) ?? NO_KEYS)
      if (!(await lock.isHeld())) throw new KeyFileError(`${lockPath} was removed meanwhile. Try again.`)
      await replaceFile(path, `${JSON.stringify(changed, undefined, 2)}\n`)
    } finally {
      await lock.release()
    }
  })
}

/** Replaces the whole content of the file. */
export function writeKeyFile(path: string, file: KeyFile): Promise<void> {
  return updateKeyFile(path, () => file)
}

interface Attributes {
  uid: number
  gid: number
  mode: number
}

/** The caller holds the lock, so the draft has a fixed name: one that a killed process left behind is overwritten. */
async function replaceFile(path: string, text: string): Promise<void> {
  const existing = await attributesOf(path)
  const draft = `${path}.new`
  await rm(draft, { force: true })
  const file = await open(draft, 'wx', 0o600)
  try {
    await file.writeFile(text)
    if (existing) await keepAttributes(file, existing)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(draft, path)
  await syncFolder(dirname(path))
}

/** The service may run as another user, which must still be able to read the file. Only the owner may write it. */
async function keepAttributes(file: FileHandle, { uid, gid, mode }: Attributes): Promise<void> {
  const own = await file.stat()
  if (own.uid !== uid || own.gid !== gid) await file.chown(uid, gid)
  await file.chmod(mode & 0o644)
}

/** Makes the rename durable. Some file systems cannot do so for a folder. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY)
  try {
    await folder.sync().catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EINVAL' && error.code !== 'EISDIR' && error.code !== 'EPERM') throw error
    })
  } finally {
    await folder.close()
  }
}

/** `undefined`: there is no file yet. Throws for a link, which the rename would replace by a file. */
async function attributesOf(path: string): Promise<Attributes | undefined> {
  try {
    const stats = await lstat(path)
    if (stats.isSymbolicLink()) {
      throw new KeyFileError(
        `API_KEYS_FILE (${path}) is a symbolic link to ${await readlink(path)}. Set it to the file itself, or change the ` +
          'mounted secret where it is kept.',
      )
    }
    if (!stats.isFile()) throw new KeyFileError(`API_KEYS_FILE (${path}) is not a regular file`)
    return stats
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

const hints: Record<string, string> = {
  EROFS: 'its file system is read-only; change the file where it is kept',
  EBUSY: 'it is a mount of its own; mount its folder instead',
  EACCES: 'check the owner and permissions of its folder',
  EPERM: 'it belongs to another user; run the command as that user',
  ENOSPC: 'the disk is full',
  ENOTDIR: 'a part of its path is not a folder',
}

/** Turns the errors of the file system and of the lock into sentences. */
async function describeFailure(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (error instanceof FileLockError) throw new KeyFileError(heldBy(path, error))
    const { code = '' } = error as NodeJS.ErrnoException
    if (hints[code] === undefined) throw error
    throw new KeyFileError(`API_KEYS_FILE (${path}) cannot be changed (${code}): ${hints[code]}`)
  }
}

function heldBy(path: string, { owner }: FileLockError): string {
  const holder = owner === undefined ? 'Another process' : `Process ${owner.pid} on ${owner.host}`
  return (
    `${holder} is changing API_KEYS_FILE (${path}). Try again; if no such process runs, remove ${path}.lock ` +
    `and ${path}.lock.takeover.`
  )
}
