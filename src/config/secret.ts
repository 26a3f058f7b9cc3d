/** Parses SECRET. If it is unset, generates one and keeps it in DATA_DIR. */
import { randomBytes } from 'node:crypto'
import { chmod, link, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * Splits SECRET: the first secret seals, all of them open. Without SECRET, as in tests, returns a new one for the life of
 * this process.
 */
export function parseSecrets(setting: string | undefined): [string, ...string[]] {
  const [first = createSecret(), ...others] = setting?.split(',') ?? []
  return [first, ...others]
}

/** Reads `<folder>/secret`, or creates it, readable by this user only, so that leases survive a restart. */
export async function loadOrCreateSecret(
  folder: string,
  warn: (sentence: string) => void = () => {},
): Promise<string> {
  const path = join(folder, 'secret')
  const existing = await readSecret(path)
  if (existing !== undefined) {
    await tightenSecret(path, warn)
    return existing
  }
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  await writeFile(draft, createSecret(), { mode: 0o600, flag: 'wx' })
  try {
    // Atomic: of two processes that start at once, the first one's secret is kept.
    await link(draft, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    await rm(draft)
  }
  return (await readSecret(path))!
}

async function readSecret(path: string): Promise<string | undefined> {
  const secret = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (secret === undefined || secret.length >= 32) return secret
  throw new Error(`${path} holds no valid secret: remove it, and the next start creates a new one`)
}

/** A copy may have left it readable. */
async function tightenSecret(path: string, warn: (sentence: string) => void): Promise<void> {
  const { mode } = await stat(path)
  if ((mode & 0o077) === 0) return
  await chmod(path, 0o600).catch(() => {
    warn(`Other users may read ${path}, with which they can forge leases: run chmod 600 ${path} as its owner`)
  })
}

function createSecret(): string {
  return randomBytes(32).toString('base64url')
}
