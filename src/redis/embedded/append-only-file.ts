/**
 * Repairs an append-only file that a kill or power loss cut off in the middle of a write, before Redis loads
 * it. Redis 7.0 (and Valkey before its pull request 4342) drops only the last partial command. It keeps the
 * beginning of the transaction around it, which is how a script's writes are stored, and executes that at the
 * next start: jobs appear that were never acknowledged. redis-check-aof removes the whole transaction.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { RedisBinary } from './redis-binary.ts'

/** Names of the file in Redis 7 and 6.2, within the data folder. */
const FILES = ['appendonlydir/appendonly.aof.manifest', 'appendonly.aof']

/** Resolves when the file is intact or does not exist. Rejects if it cannot be repaired. */
export async function repairAppendOnlyFile(
  { path, env }: Pick<RedisBinary, 'path' | 'env'>,
  dataDir: string,
): Promise<void> {
  const file = await findExisting(FILES.map((name) => join(dataDir, name)))
  if (file === undefined) return
  // The server binary acts as redis-check-aof when it is started under that name.
  const argv0 = basename(path).replace('server', 'check-aof')
  const child = spawn(path, ['--fix', file], { argv0, env: { ...process.env, ...env } })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output = (output + data).slice(-500)
    })
  }
  // Confirms the truncation. A check that finds nothing may have ended already, which breaks the pipe.
  child.stdin.on('error', () => {})
  child.stdin.end('y\n')
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0)
    throw new Error(`The append-only file ${file} cannot be repaired (redis-check-aof): ${output}`)
}

async function findExisting(files: string[]): Promise<string | undefined> {
  for (const file of files) {
    const exists = await access(file).then(
      () => true,
      () => false,
    )
    if (exists) return file
  }
  return undefined
}
