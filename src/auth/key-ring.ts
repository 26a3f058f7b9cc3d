/**
 * The keys in force: API_KEYS_FILE, read anew when it changes. A file that vanishes or breaks while the service runs
 * changes nothing and is told in the log and in /health: the door never opens by accident.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { unwatchFile, watchFile } from 'node:fs'
import type { Logger } from 'pino'
import { type Access, anonymous, createQueueMatcher } from './access.ts'
import { digestOf, type Key, type KeyFile, keyIdOf, readKeyFile } from './key-file.ts'

export interface KeyRing {
  /** False while there is no key at all, not even a revoked one: then everyone is {@link anonymous}. */
  requiresKey(): boolean
  /** Who sent this secret; `undefined` when nobody may be known by it. */
  find(secret: string): Access | undefined
  /** How often each key that is in the file has been found since the start, by id. */
  requests(): Record<string, number>
  /** Why the file could not be read anew; `undefined` when it could. */
  problem(): string | undefined
  close(): void
}

/** By looking, since an event for a file is not had on every file system, nor when a mounted secret is swapped. */
const LOOK_EVERY_MS = 1_000

interface LiveKey {
  access: Access
  digests: Buffer[]
  /** As it stands in the file. */
  text: string
  isLive: boolean
  requests: number
}

/** For an id that nobody has: compared like the others, so that the time tells no ids. */
const decoy: LiveKey = { access: anonymous, digests: [randomBytes(32)], text: '', isLive: false, requests: 0 }

/** Throws a KeyFileError when the file is there and cannot be understood. */
export async function openKeyRing(path: string, log: Logger): Promise<KeyRing> {
  let problem: string | undefined
  let keys = new Map<string, LiveKey>()
  let demandsKey = false
  /** Of the secret that is looked at; nothing else happens meanwhile. */
  const digest = Buffer.alloc(32)

  function use(file: KeyFile): void {
    const before = keys
    keys = new Map(file.keys.map((key) => [key.id, unchanged(before.get(key.id), key) ?? toLiveKey(key)]))
    for (const [id, key] of before) {
      const now = keys.get(id)
      key.isLive = now === key
      if (now) now.requests = key.requests
    }
    demandsKey = file.keys.length > 0 || demandsKey
  }

  async function reload(): Promise<void> {
    try {
      const file = await readKeyFile(path)
      if (!file && demandsKey) throw new Error(`API_KEYS_FILE (${path}) is gone`)
      problem = undefined
      if (!file) return
      use(file)
      log.info({ keys: keys.size }, 'API keys read anew')
    } catch (error) {
      problem = `${(error as Error).message}; the keys of before are in force`
      log.error({ reason: problem }, 'API keys not read anew')
    }
  }

  const file = await readKeyFile(path)
  if (file) use(file)
  const looked = () => void reload()
  watchFile(path, { interval: LOOK_EVERY_MS }, looked)

  return {
    requiresKey: () => demandsKey,
    find(secret) {
      const key = keys.get(keyIdOf(secret) ?? '') ?? decoy
      digest.write(digestOf(secret), 'binary')
      let isLive = false
      for (const live of key.digests) {
        if (timingSafeEqual(digest, live)) isLive = true
      }
      if (!isLive) return undefined
      key.requests++
      return key.access
    },
    requests: () => Object.fromEntries([...keys].map(([id, key]) => [id, key.requests])),
    problem: () => problem,
    close: () => unwatchFile(path, looked),
  }
}

function unchanged(live: LiveKey | undefined, key: Key): LiveKey | undefined {
  return live?.text === JSON.stringify(key) ? live : undefined
}

function toLiveKey(key: Key): LiveKey {
  const { id, scopes, queues, rate, secrets } = key
  const granted = new Set<string>(scopes)
  const live: LiveKey = {
    access: {
      keyId: id,
      hasScope: (scope) => granted.has(scope),
      canAccessQueue: createQueueMatcher(queues),
      rate: rate ?? undefined,
      isLive: () => live.isLive,
    },
    digests: secrets.map(({ sha256 }) => Buffer.from(sha256, 'hex')),
    text: JSON.stringify(key),
    isLive: true,
    requests: 0,
  }
  return live
}
