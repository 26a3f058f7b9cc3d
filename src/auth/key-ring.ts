/**
 * The API keys in force, reloaded when API_KEYS_FILE changes. If the file disappears or becomes invalid while the service
 * runs, the previous keys stay in force, and the log and /health report it: the service never becomes open by accident.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { stat } from 'node:fs/promises'
import type { Logger } from 'pino'
import { type Access, anonymous, createQueueMatcher } from './access.ts'
import { digestOf, type Key, type KeyFile, keyIdOf, readKeyFile } from './key-file.ts'

export interface KeyRing {
  /** False while the file has no key, not even a revoked one; then every caller is {@link anonymous}. */
  requiresKey(): boolean
  /** The access of the key that this secret belongs to; `undefined` if no live key has it. Counts the request. */
  find(secret: string): Access | undefined
  /** Requests since the start, by id, of each key that is still in the file. */
  requests(): Record<string, number>
  /** Why the last reload failed; `undefined` if it succeeded. */
  problem(): string | undefined
  close(): void
}

/** Polls, because not every file system sends change events, and neither does the swap of a mounted secret. */
const POLL_INTERVAL_MS = 1_000

interface LiveKey {
  access: Access
  digests: Buffer[]
  /** The entry of the file as JSON, to detect changes. */
  json: string
  isLive: boolean
  requests: number
}

/** Compared in place of an unknown id, so that the timing does not reveal which ids exist. */
const decoy: LiveKey = { access: anonymous, digests: [randomBytes(32)], json: '', isLive: false, requests: 0 }

/** Throws a KeyFileError if the file exists and is invalid. */
export async function openKeyRing(path: string, log: Logger): Promise<KeyRing> {
  let problem: string | undefined
  let keys = new Map<string, LiveKey>()
  let isKeyRequired = false
  /** Scratch space of `find`, which is synchronous. */
  const digest = Buffer.alloc(32)

  function replaceKeys(file: KeyFile): void {
    const previous = keys
    keys = new Map(file.keys.map((key) => [key.id, ifUnchanged(previous.get(key.id), key) ?? toLiveKey(key)]))
    for (const [id, key] of previous) {
      const current = keys.get(id)
      key.isLive = current === key
      if (current) current.requests = key.requests
    }
    isKeyRequired = file.keys.length > 0 || isKeyRequired
  }

  /** Of the file that was read last. Taken before it is read, so that a change meanwhile is seen by the next poll. */
  let version = await versionOf(path)
  let timer: NodeJS.Timeout | undefined
  let isClosed = false

  async function poll(): Promise<void> {
    const current = await versionOf(path)
    if (current !== version && !isClosed) {
      version = current
      await reload()
    }
    pollLater()
  }

  function pollLater(): void {
    if (!isClosed) timer = setTimeout(() => void poll(), POLL_INTERVAL_MS)
  }

  async function reload(): Promise<void> {
    try {
      const file = await readKeyFile(path)
      if (!file && isKeyRequired) throw new Error(`API_KEYS_FILE (${path}) is missing`)
      problem = undefined
      if (!file) return
      replaceKeys(file)
      log.info({ keys: keys.size }, 'API keys reloaded')
    } catch (error) {
      problem = `${(error as Error).message}; the previous keys stay in force`
      log.error({ reason: problem }, 'API keys not reloaded')
    }
  }

  const file = await readKeyFile(path)
  if (file) replaceKeys(file)
  pollLater()

  return {
    requiresKey: () => isKeyRequired,
    find(secret) {
      const key = keys.get(keyIdOf(secret) ?? '') ?? decoy
      digest.write(digestOf(secret), 'binary')
      let isLive = false
      for (const candidate of key.digests) {
        if (timingSafeEqual(digest, candidate)) isLive = true
      }
      if (!isLive) return undefined
      key.requests++
      return key.access
    },
    requests: () => Object.fromEntries([...keys].map(([id, key]) => [id, key.requests])),
    problem: () => problem,
    close() {
      isClosed = true
      clearTimeout(timer)
    },
  }
}

/** Changes with every write and rename, and with a change of the permissions. */
async function versionOf(path: string): Promise<string> {
  const stats = await stat(path, { bigint: true }).catch(() => undefined)
  return stats ? `${stats.dev} ${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}` : 'missing'
}

function ifUnchanged(live: LiveKey | undefined, key: Key): LiveKey | undefined {
  return live?.json === JSON.stringify(key) ? live : undefined
}

function toLiveKey(key: Key): LiveKey {
  const { id, scopes, queues, rate, secrets } = key
  const granted = new Set<string>(scopes)
  const live: LiveKey = {
    access: {
      keyId: id,
      hasScope: (scope) => granted.has(scope),
      canAccessQueue: createQueueMatcher(queues),
      coversAllQueues: queues.includes('*'),
      rate: rate ?? undefined,
      isLive: () => live.isLive,
    },
    digests: secrets.map(({ sha256 }) => Buffer.from(sha256, 'hex')),
    json: JSON.stringify(key),
    isLive: true,
    requests: 0,
  }
  return live
}
