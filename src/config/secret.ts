/** Without a SECRET: one is made once and kept beside the data, so that leases hold after a restart. */
import { randomBytes } from 'node:crypto'
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Of this folder; made when there is none. For this user's eyes only. */
export async function loadOrCreateSecret(folder: string): Promise<string> {
  const path = join(folder, 'secret')
  const known = await read(path)
  if (known !== undefined) return known
  await mkdir(folder, { recursive: true })
  const own = `${path}.${randomBytes(6).toString('hex')}`
  await writeFile(own, randomBytes(32).toString('base64url'), { mode: 0o600, flag: 'wx' })
  try {
    // Whole or not at all; of two that start at once, one is first.
    await link(own, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    await rm(own)
  }
  return (await read(path))!
}

async function read(path: string): Promise<string | undefined> {
  const secret = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (secret === undefined || secret.length >= 32) return secret
  throw new Error(`${path} holds no secret: remove it, and a new one is made`)
}
