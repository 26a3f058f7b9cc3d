/**
 * API_KEYS_FILE: the keys as they are kept. Of a secret there is only its SHA-256: it has 256 random bits, so nothing
 * slower is needed. A key stays in the file when it is revoked, so that its id is not given away again, and so that a
 * file without a live key still demands one.
 */
import { hash, randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type Static, Type } from 'typebox'
import { createValidator } from '../validation.ts'
import { type Rate, type Scope, scopes } from './access.ts'

const strict = { additionalProperties: false }
const Time = Type.String({ description: 'RFC 3339.' })

export const KEY_ID_PATTERN = '^[A-Za-z0-9_-]{1,64}$'
export const QUEUE_GLOB_PATTERN = '^[A-Za-z0-9_.*-]{1,100}$'

const Key = Type.Object(
  {
    id: Type.String({ pattern: KEY_ID_PATTERN, description: 'A name, for logs and people.' }),
    scopes: Type.Array(Type.Enum([...scopes], { description: `One of ${scopes.join(', ')}.` })),
    queues: Type.Array(
      Type.String({ pattern: QUEUE_GLOB_PATTERN, description: 'A queue, or a pattern with stars.' }),
    ),
    rate: Type.Union([
      Type.Null(),
      Type.Object({ max: Type.Integer({ minimum: 1 }), windowMs: Type.Integer({ minimum: 1 }) }, strict),
    ]),
    secrets: Type.Array(
      Type.Object(
        { sha256: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'In hex.' }), createdAt: Time },
        strict,
      ),
      { maxItems: 2 },
    ),
    createdAt: Time,
    revokedAt: Type.Union([Type.Null(), Time]),
  },
  strict,
)
export type Key = Static<typeof Key>

const KeyFile = Type.Object({ version: Type.Literal(1), keys: Type.Array(Key) }, strict)
export type KeyFile = Static<typeof KeyFile>

const validate = createValidator(KeyFile)

/** What is wrong with the file, or with what is asked of it, in a sentence. */
export class KeyFileError extends Error {
  constructor(sentence: string) {
    super(sentence)
    this.name = 'KeyFileError'
  }
}

/** `undefined`: there is no such file. Throws {@link KeyFileError} for one that cannot be read or understood. */
export async function readKeyFile(path: string): Promise<KeyFile | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new KeyFileError(`API_KEYS_FILE (${path}) cannot be read: ${code}`)
  }
  return parseKeyFile(text, path)
}

function parseKeyFile(text: string, path: string): KeyFile {
  let file: unknown
  try {
    file = JSON.parse(text)
  } catch {
    // The parser's own words would repeat what stands in the file.
    throw new KeyFileError(`API_KEYS_FILE (${path}) is not valid JSON`)
  }
  const invalid = validate(file)
  if (invalid) {
    const faults = invalid.errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ')
    throw new KeyFileError(`API_KEYS_FILE (${path}) does not fit: ${faults}`)
  }
  const { keys } = file as KeyFile
  const twice = keys.find(({ id }, index) => keys.findIndex((other) => other.id === id) !== index)
  if (twice) throw new KeyFileError(`API_KEYS_FILE (${path}) has the id ${twice.id} twice`)
  return file as KeyFile
}

/** Whole or not at all, and for this user's eyes only. */
export async function writeKeyFile(path: string, file: KeyFile): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  await writeFile(draft, `${JSON.stringify(file, undefined, 2)}\n`, { mode: 0o600 })
  await rename(draft, path)
}

/** What a client sends: its prefix lets scanners of leaked secrets know it. */
export function createApiKeySecret(id: string): string {
  return `${SECRET_PREFIX}${id}.${randomBytes(32).toString('base64url')}`
}

const SECRET_PREFIX = 'sluice_'

/** The id of the key that a secret says to be of; `undefined` for what is no secret of ours. */
export function keyIdOf(secret: string): string | undefined {
  const dot = secret.indexOf('.')
  return secret.startsWith(SECRET_PREFIX) && dot > 0 ? secret.slice(SECRET_PREFIX.length, dot) : undefined
}

/** The SHA-256, as a text of 32 bytes: a Buffer from OpenSSL costs three times as much, and this is done for every request. */
export function digestOf(secret: string): string {
  return hash('sha256', secret, 'binary')
}

export interface KeyRequest {
  id: string
  scopes: Scope[]
  queues: string[]
  rate: Rate | null
}

/** A new key. Throws for an id that is taken, also by a revoked one. */
export function addKey(file: KeyFile, request: KeyRequest, secret: string, now: string): KeyFile {
  const existing = file.keys.find(({ id }) => id === request.id)
  if (existing) {
    const state = existing.revokedAt === null ? 'already there' : 'of a revoked key'
    throw new KeyFileError(`The id ${request.id} is ${state}: choose another`)
  }
  const key: Key = { ...request, secrets: [secretOf(secret, now)], createdAt: now, revokedAt: null }
  return { ...file, keys: [...file.keys, key] }
}

/** A second secret for a key, so that its users can change over one by one. Throws when two are live. */
export function addSecret(file: KeyFile, id: string, secret: string, now: string): KeyFile {
  return change(file, id, (key) => {
    if (key.secrets.length >= 2) {
      throw new KeyFileError(`Two secrets of ${id} are live, which is the most: revoke one first`)
    }
    return { ...key, secrets: [...key.secrets, secretOf(secret, now)] }
  })
}

/** Takes back the key, or the one secret whose SHA-256 begins with `fingerprint`. */
export function revoke(file: KeyFile, id: string, fingerprint: string | undefined, now: string): KeyFile {
  return change(file, id, (key) => {
    if (fingerprint === undefined) return { ...key, secrets: [], revokedAt: now }
    const secrets = key.secrets.filter(({ sha256 }) => !sha256.startsWith(fingerprint))
    if (secrets.length !== key.secrets.length - 1) {
      throw new KeyFileError(`Not one secret of ${id} has the fingerprint ${fingerprint}: see list`)
    }
    return { ...key, secrets, revokedAt: secrets.length === 0 ? now : null }
  })
}

function change(file: KeyFile, id: string, changed: (key: Key) => Key): KeyFile {
  const key = file.keys.find((other) => other.id === id)
  if (!key || key.revokedAt !== null) throw new KeyFileError(`There is no live key with the id ${id}`)
  return { ...file, keys: file.keys.map((other) => (other === key ? changed(key) : other)) }
}

function secretOf(secret: string, createdAt: string) {
  return { sha256: Buffer.from(digestOf(secret), 'binary').toString('hex'), createdAt }
}
