/**
 * The redis-server in the cache folder. It is executed, with its libraries, so it is used only if no other user could have
 * put it there and if it still is what this program unpacked: a manifest beside it lists every file with its SHA-256. (apt
 * has verified the signature of the packages.) A folder without a manifest, as one of an earlier version, is fetched again.
 */
import { createHash } from 'node:crypto'
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Each path below the root: the SHA-256 of a file, or the target of a link. */
type Manifest = Record<string, string>

const MANIFEST = 'manifest.json'
const ROOT = 'root'
const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000

export type Inspection =
  | { kind: 'missing' }
  /** It may be fetched again into the same folder. */
  | { kind: 'unverified'; reason: string }
  /** Other users could replace whatever is put into it. */
  | { kind: 'unsafe'; reason: string }
  | { kind: 'verified'; root: string }

/** Resolves with the folder of the unpacked packages if it may be executed from. */
export async function inspectDownload(cacheDir: string): Promise<Inspection> {
  const folder = await realpath(cacheDir).catch(() => undefined)
  if (folder === undefined) return { kind: 'missing' }
  const stats = await stat(folder)
  if (!isOwnOrRoots(stats)) return { kind: 'unsafe', reason: `${folder} belongs to another user` }
  const parent = await unsafeParent(folder)
  if (parent !== undefined) return { kind: 'unsafe', reason: `every user may write ${parent}` }
  const root = join(folder, ROOT)
  if (!(await exists(root))) return { kind: 'missing' }
  const unsafe = unsafeMode(folder, stats)
  if (unsafe !== undefined) return { kind: 'unverified', reason: unsafe }
  const manifest = await readManifest(join(folder, MANIFEST))
  if (manifest === undefined) return { kind: 'unverified', reason: `${folder} has no manifest` }
  const found = await describeTree(root)
  if ('unsafe' in found) return { kind: 'unverified', reason: found.unsafe }
  const changed = firstDifference(manifest, found.manifest)
  if (changed !== undefined)
    return { kind: 'unverified', reason: `${join(root, changed)} is not as it was fetched` }
  return { kind: 'verified', root }
}

/** Moves an unpacked tree, of which `folder` is the root, to its place, and records what it contains. */
export async function installDownload(cacheDir: string, folder: string): Promise<void> {
  await closeTree(folder)
  const found = await describeTree(folder)
  if ('unsafe' in found) throw new Error(found.unsafe)
  const old = `${folder}-old`
  const root = join(cacheDir, ROOT)
  const text = JSON.stringify(found.manifest, undefined, 1)
  const draft = `${folder}-manifest`
  await writeFile(draft, text, { mode: 0o644, flag: 'wx' })
  await rename(root, old).catch(ignoreMissing)
  await rename(folder, root).catch(async (error: NodeJS.ErrnoException) => {
    // Another process was faster; its result is the same.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
  })
  await rename(draft, join(cacheDir, MANIFEST))
  await rm(old, { recursive: true, force: true })
}

/** Creates the cache folder, or takes write access to it from other users. */
export async function prepareCacheDir(cacheDir: string): Promise<void> {
  await mkdir(cacheDir, { recursive: true, mode: 0o755 })
  const { mode, uid } = await stat(cacheDir)
  if (uid === process.getuid?.() && (mode & WRITABLE_BY_OTHERS) !== 0) await chmod(cacheDir, mode & 0o755)
}

/** dpkg keeps the modes of the packages, but a umask of the user may have left folders open to the group. */
async function closeTree(folder: string): Promise<void> {
  for (const path of ['', ...(await readdir(folder, { recursive: true }))]) {
    const full = join(folder, path)
    const { mode } = await lstat(full)
    if ((mode & WRITABLE_BY_OTHERS) !== 0 && !(await lstat(full)).isSymbolicLink())
      await chmod(full, mode & 0o755)
  }
}

async function describeTree(root: string): Promise<{ manifest: Manifest } | { unsafe: string }> {
  const manifest: Manifest = {}
  for (const path of ['', ...(await readdir(root, { recursive: true }))].sort()) {
    const full = join(root, path)
    const stats = await lstat(full)
    if (stats.isSymbolicLink()) {
      manifest[path] = `-> ${await readlink(full)}`
      continue
    }
    const unsafe = unsafeMode(full, stats)
    if (unsafe !== undefined) return { unsafe }
    if (stats.isFile())
      manifest[path] = createHash('sha256')
        .update(await readFile(full))
        .digest('hex')
  }
  return { manifest }
}

/** A path that is in one of the manifests only, or with another content. */
function firstDifference(expected: Manifest, found: Manifest): string | undefined {
  const paths = new Set([...Object.keys(expected), ...Object.keys(found)])
  return [...paths].find((path) => expected[path] !== found[path])
}

async function readManifest(path: string): Promise<Manifest | undefined> {
  try {
    const stats = await lstat(path)
    if (!stats.isFile() || unsafeMode(path, stats) !== undefined) return undefined
    return JSON.parse(await readFile(path, 'utf8')) as Manifest
  } catch {
    return undefined
  }
}

function unsafeMode(path: string, { uid, mode }: { uid: number; mode: number }): string | undefined {
  if (!isOwnOrRoots({ uid })) return `${path} belongs to another user`
  if ((mode & WRITABLE_BY_OTHERS) !== 0) return `other users may write ${path}`
  return undefined
}

/** Root can replace any file anyway, so what root owns is as safe as what this user owns. */
function isOwnOrRoots({ uid }: { uid: number }): boolean {
  return uid === 0 || uid === process.getuid?.()
}

/**
 * A folder above that every user may write, unless it is sticky as /tmp is. Its group is not checked: the program itself is
 * in the same folder, so a group that may write there may change the program as well.
 */
async function unsafeParent(folder: string): Promise<string | undefined> {
  for (let parent = dirname(folder); ; parent = dirname(parent)) {
    const { mode } = await stat(parent)
    if ((mode & 0o002) !== 0 && (mode & STICKY) === 0) return parent
    if (parent === dirname(parent)) return undefined
  }
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
