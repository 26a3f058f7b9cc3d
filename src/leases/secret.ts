/** Without a SECRET: one is made once and kept beside the data, so that leases hold after a restart. */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Of this folder; made when there is none. For this user's eyes only. */
export async function keptSecret(folder: string): Promise<string> {
  const path = join(folder, 'secret')
  await mkdir(folder, { recursive: true })
  try {
    // `wx`: of two that start at once, one makes it.
    await writeFile(path, randomBytes(32).toString('base64url'), { mode: 0o600, flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const secret = await readFile(path, 'utf8')
  if (secret.length < 32) throw new Error(`${path} holds no secret: remove it, and a new one is made`)
  return secret
}
