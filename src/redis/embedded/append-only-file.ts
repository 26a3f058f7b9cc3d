/**
 * An append-only file that was cut off in the middle of a write, as a kill or a power loss does it, has to be mended before
 * Redis starts on it. What a script writes is a transaction there. Redis 7.0 (and Valkey before its pull request 4342) cuts
 * off the last half command, leaves the beginning of the transaction, and executes it at the start after that: jobs appear
 * that were never acknowledged, beside those that took their place. redis-check-aof cuts before the transaction.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { RedisBinary } from './redis-binary.ts'

/** As Redis 7 and 6.2 name it, in the folder of the data. */
const FILES = ['appendonlydir/appendonly.aof.manifest', 'appendonly.aof']

/** Resolves when the file is whole, or when there is none. Rejects when it cannot be mended. */
export async function repairAppendOnlyFile(
  { path, env }: Pick<RedisBinary, 'path' | 'env'>,
  dataDir: string,
): Promise<void> {
  const file = await firstThatExists(FILES.map((name) => join(dataDir, name)))
  if (file === undefined) return
  // The server itself checks files when it is called by that name.
  const argv0 = basename(path).replace('server', 'check-aof')
  const child = spawn(path, ['--fix', file], { argv0, env: { ...process.env, ...env } })
  let said = ''
  for (const output of [child.stdout, child.stderr]) {
    output.on('data', (data) => {
      said = (said + data).slice(-500)
    })
  }
  // It asks before it cuts; one that has nothing to ask may have ended.
  child.stdin.on('error', () => {})
  child.stdin.end('y\n')
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`The append-only file ${file} cannot be mended (redis-check-aof): ${said}`)
}

async function firstThatExists(files: string[]): Promise<string | undefined> {
  for (const file of files) {
    const exists = await access(file).then(
      () => true,
      () => false,
    )
    if (exists) return file
  }
  return undefined
}
