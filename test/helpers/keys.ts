/** A service with API keys, whose file is created before the start, as with `npm run key`. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Rate, Scope } from '../../src/auth/access.ts'
import { addKey, createApiKeySecret, type KeyFile } from '../../src/auth/key-file.ts'
import { writeKeyFile } from '../../src/auth/key-file-update.ts'
import { startApp } from './app.ts'

export interface Grant {
  scopes: Scope[]
  queues?: string[]
  rate?: Rate
}

/** Resolves with the service, the secret of each id, and the path of the key file. */
export async function startAppWithKeys<Id extends string>(
  t: Test,
  redis: { socket: string },
  grants: Record<Id, Grant>,
  settings: Record<string, string> = {},
) {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-keys-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const path = join(folder, 'keys.json')
  let file: KeyFile = { version: 1, keys: [] }
  const secrets = {} as Record<Id, string>
  for (const [id, { scopes, queues = ['*'], rate = null }] of Object.entries<Grant>(grants)) {
    secrets[id as Id] = createApiKeySecret(id)
    file = addKey(file, { id, scopes, queues, rate }, secrets[id as Id], new Date().toISOString())
  }
  await writeKeyFile(path, file)
  const app = await startApp(redis, { ...settings, API_KEYS_FILE: path })
  t.teardown(() => app.http.close())
  return { app, secrets, path }
}
