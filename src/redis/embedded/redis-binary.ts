/**
 * Finds a redis-server to run: on the PATH, or downloaded earlier, or (Debian, Ubuntu) downloaded now as the
 * distribution's package and unpacked into the cache folder, without root and without installing anything.
 */
import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { inspectDownload, installDownload, prepareCacheDir } from './downloaded-redis.ts'

const run = promisify(execFile)

export interface RedisBinary {
  path: string
  /** Environment variables that the binary needs in addition to those of this process. */
  env: Record<string, string>
  version: string
}

export interface BinaryOptions {
  /** Folder for a downloaded server; created if needed. */
  cacheDir: string
  /** PATH to search. */
  path: string
  /** Called before a download. */
  onFetch(): void
}

/**
 * redis-server and the libraries it may need. Names differ between releases, so a package that is not found
 * is skipped.
 */
const PACKAGES = [
  'redis-server',
  'redis-tools',
  'libjemalloc2',
  'liblua5.1-0',
  'liblzf1',
  'libhiredis0.14',
  'libhiredis1.1.0',
  'lua-cjson',
  'lua-bitop',
  'libatomic1',
]

const HOW_TO_INSTALL =
  'No redis-server was found on this machine. Install one (Debian: apt-get install redis-server; ' +
  'macOS: brew install redis; Fedora: dnf install redis), or set REDIS_URL to a server that runs elsewhere.'

/** Rejects with instructions to install Redis if none is found. */
export async function findRedisBinary({ cacheDir, path, onFetch }: BinaryOptions): Promise<RedisBinary> {
  for (const name of ['redis-server', 'valkey-server']) {
    for (const folder of path.split(':')) {
      // An empty or relative entry would mean a folder of the working directory.
      const found = isAbsolute(folder) ? await tryBinary(join(folder, name), {}) : undefined
      if (found) return found
    }
  }
  const folder = resolve(cacheDir)
  const { binary: downloaded, reason } = await tryDownloaded(folder)
  if (downloaded) return downloaded
  onFetch()
  try {
    await downloadFromApt(folder)
  } catch (cause) {
    throw new Error(reason === undefined ? HOW_TO_INSTALL : `${notUsed(folder, reason)} ${HOW_TO_INSTALL}`, {
      cause,
    })
  }
  const fetched = await tryDownloaded(folder)
  if (fetched.binary) return fetched.binary
  throw new Error(fetched.reason === undefined ? HOW_TO_INSTALL : notUsed(folder, fetched.reason))
}

/** The downloaded server, or the reason why it is not used. Rejects where a new download would not be used either. */
async function tryDownloaded(
  cacheDir: string,
): Promise<{ binary: RedisBinary | undefined; reason: string | undefined }> {
  const inspection = await inspectDownload(cacheDir)
  if (inspection.kind === 'unsafe') {
    throw new Error(
      `${notUsed(cacheDir, inspection.reason)} Move the program to a folder that only this user may write, or install a redis-server.`,
    )
  }
  if (inspection.kind === 'verified') return { binary: await tryRoot(inspection.root), reason: undefined }
  return { binary: undefined, reason: inspection.kind === 'unverified' ? inspection.reason : undefined }
}

function notUsed(cacheDir: string, reason: string): string {
  return `The redis-server in ${cacheDir} is not run: ${reason}.`
}

async function tryRoot(root: string): Promise<RedisBinary | undefined> {
  const libraries = await readdir(join(root, 'usr/lib')).catch(() => [])
  // Libraries are in usr/lib/<architecture>-linux-gnu.
  const folders = libraries
    .filter((name) => name.includes('linux'))
    .map((name) => join(root, 'usr/lib', name))
  return tryBinary(join(root, 'usr/bin/redis-server'), { LD_LIBRARY_PATH: folders.join(':') })
}

async function tryBinary(path: string, env: Record<string, string>): Promise<RedisBinary | undefined> {
  try {
    await access(path)
    const { stdout } = await run(path, ['--version'], { env, timeout: 5_000 })
    return { path, env, version: /v=(\S+)/.exec(stdout)?.[1] ?? 'unknown' }
  } catch {
    return undefined
  }
}

async function downloadFromApt(cacheDir: string): Promise<void> {
  await prepareCacheDir(cacheDir)
  // Downloads to a temporary folder that is renamed at the end, so that two processes can download at the same time.
  const work = await mkdtemp(resolve(cacheDir, 'fetch-'))
  try {
    const folders = ['state/lists/partial', 'cache/archives/partial', 'debs', 'root']
    await Promise.all(folders.map((folder) => mkdir(join(work, folder), { recursive: true })))
    const options = [
      `Dir::State=${work}/state`,
      `Dir::Cache=${work}/cache`,
      'Dir::State::status=/var/lib/dpkg/status',
      'Debug::NoLocking=1',
      'APT::Sandbox::User=',
    ].flatMap((option) => ['-o', option])
    await run('apt-get', [...options, 'update'], { timeout: 120_000 })
    const debs = join(work, 'debs')
    for (const name of PACKAGES) {
      await run('apt-get', [...options, 'download', name], { cwd: debs, timeout: 120_000 }).catch(() => {})
    }
    for (const deb of await readdir(debs)) await run('dpkg', ['-x', join(debs, deb), join(work, 'root')])
    await installDownload(cacheDir, join(work, 'root'))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
