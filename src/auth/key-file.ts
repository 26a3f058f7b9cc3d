/**
 * The content of API_KEYS_FILE: how it is read, validated and changed. It holds only the SHA-256 of each secret: a
 * secret has 256 random bits, so a slower hash would add nothing. A revoked key stays in the file, so that its id is never reused, and so that a file
 * whose keys are all revoked still requires a key.
 */
import { hash, randomBytes } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { type Static, Type } from 'typebox'
import { createValidator } from '../validation.ts'
import { type Rate, type Scope, scopes } from './access.ts'

const strict = { additionalProperties: false }
const Time = Type.String({ description: 'RFC 3339.' })

export const KEY_ID_PATTERN = '^[A-Za-z0-9_-]{1,64}$'
/** Queue names have no colon. With escapes, a pattern may be longer than a name. */
export const QUEUE_GLOB_PATTERN = '^[^:]{1,1024}$'

const Key = Type.Object(
  {
    id: Type.String({ pattern: KEY_ID_PATTERN, description: 'A name for logs and operators.' }),
    scopes: Type.Array(Type.Enum([...scopes], { description: `One of ${scopes.join(', ')}.` }), {
      maxItems: 100,
    }),
    queues: Type.Array(
      Type.String({
        pattern: QUEUE_GLOB_PATTERN,
        description:
          'A queue name, or a pattern with stars; a backslash before a character takes its meaning.',
      }),
      { maxItems: 1_000 },
    ),
    rate: Type.Union([
      Type.Null(),
      Type.Object({ max: Type.Integer({ minimum: 1 }), windowMs: Type.Integer({ minimum: 1 }) }, strict),
    ]),
    secrets: Type.Array(
      Type.Object(
        {
          sha256: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'SHA-256 of the secret, in hex.' }),
          createdAt: Time,
        },
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

/** Reading the file blocks the event loop, for some tens of ms at these bounds. Revoked keys count. */
const MAX_KEYS = 10_000
const MAX_FILE_BYTES = 16_777_216

const KeyFile = Type.Object(
  { version: Type.Literal(1), keys: Type.Array(Key, { maxItems: MAX_KEYS }) },
  strict,
)
export type KeyFile = Static<typeof KeyFile>

const validate = createValidator(KeyFile)

/** An invalid file, or a change that it does not allow. The message is a sentence for the operator. */
export class KeyFileError extends Error {
  constructor(sentence: string) {
    super(sentence)
    this.name = 'KeyFileError'
  }
}

/** Returns `undefined` if the file does not exist. Throws {@link KeyFileError} if it cannot be read or is invalid. */
export async function readKeyFile(path: string): Promise<KeyFile | undefined> {
  let text: string
  try {
    const { size } = await stat(path)
    if (size > MAX_FILE_BYTES)
      throw new KeyFileError(
        `API_KEYS_FILE (${path}) is larger than ${MAX_FILE_BYTES} bytes: remove old revoked keys`,
      )
    text = await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    if (error instanceof KeyFileError) throw error
    throw new KeyFileError(
      `API_KEYS_FILE (${path}) cannot be read (${code}): check its owner and permissions`,
    )
  }
  return parseKeyFile(text, path)
}

function parseKeyFile(text: string, path: string): KeyFile {
  let file: unknown
  try {
    file = JSON.parse(text)
  } catch {
    // The message of JSON.parse would quote the file, which contains hashes.
    throw new KeyFileError(`API_KEYS_FILE (${path}) is not valid JSON`)
  }
  const invalid = validate(file)
  if (invalid) {
    const problems = invalid.errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ')
    throw new KeyFileError(`API_KEYS_FILE (${path}) does not match the schema: ${problems}`)
  }
  const ids = new Set<string>()
  for (const { id } of (file as KeyFile).keys) {
    if (ids.has(id)) throw new KeyFileError(`API_KEYS_FILE (${path}) contains the id ${id} twice`)
    ids.add(id)
  }
  return file as KeyFile
}

/** Generates the secret that a client sends. Its prefix lets secret scanners recognize it. */
export function createApiKeySecret(id: string): string {
  return `${SECRET_PREFIX}${id}.${randomBytes(32).toString('base64url')}`
}

const SECRET_PREFIX = 'sluice_'

/** The key id that a secret names, unverified; `undefined` if the text has another format. */
export function keyIdOf(secret: string): string | undefined {
  const dot = secret.indexOf('.')
  return secret.startsWith(SECRET_PREFIX) && dot > 0 ? secret.slice(SECRET_PREFIX.length, dot) : undefined
}

/** The SHA-256 as a binary string. Runs for every request; a Buffer from OpenSSL would cost three times as much. */
export function digestOf(secret: string): string {
  return hash('sha256', secret, 'binary')
}

export interface KeyRequest {
  id: string
  scopes: Scope[]
  queues: string[]
  rate: Rate | null
}

/** Adds a key. Throws {@link KeyFileError} if the id exists, even as a revoked key. */
export function addKey(file: KeyFile, request: KeyRequest, secret: string, now: string): KeyFile {
  const existing = file.keys.find(({ id }) => id === request.id)
  if (existing) {
    const use = existing.revokedAt === null ? 'in use' : 'the id of a revoked key'
    throw new KeyFileError(`The id ${request.id} is ${use}. Choose another id.`)
  }
  if (file.keys.length >= MAX_KEYS)
    throw new KeyFileError(`There are ${MAX_KEYS} keys, the maximum. Remove revoked keys from the file.`)
  const key: Key = { ...request, secrets: [secretOf(secret, now)], createdAt: now, revokedAt: null }
  return { ...file, keys: [...file.keys, key] }
}

/** Adds a second secret, so that clients can switch one by one. Throws {@link KeyFileError} if the key has two. */
export function addSecret(file: KeyFile, id: string, secret: string, now: string): KeyFile {
  return updateKey(file, id, (key) => {
    if (key.secrets.length >= 2) {
      throw new KeyFileError(`Two secrets of ${id} are live, the maximum. Revoke one first.`)
    }
    return { ...key, secrets: [...key.secrets, secretOf(secret, now)] }
  })
}

/** Revokes a key, or only the secret whose SHA-256 starts with `fingerprint`. Revoking the last secret revokes the key. */
export function revoke(file: KeyFile, id: string, fingerprint: string | undefined, now: string): KeyFile {
  return updateKey(file, id, (key) => {
    if (fingerprint === undefined) return { ...key, secrets: [], revokedAt: now }
    const secrets = key.secrets.filter(({ sha256 }) => !sha256.startsWith(fingerprint))
    if (secrets.length !== key.secrets.length - 1) {
      throw new KeyFileError(
        `No secret of ${id}, or more than one, has the fingerprint ${fingerprint}. See the output of list.`,
      )
    }
    return { ...key, secrets, revokedAt: secrets.length === 0 ? now : null }
  })
}

function updateKey(file: KeyFile, id: string, update: (key: Key) => Key): KeyFile {
  const key = file.keys.find((other) => other.id === id)
  if (!key || key.revokedAt !== null)
    throw new KeyFileError(`No live key has the id ${id}. See the output of list.`)
  return { ...file, keys: file.keys.map((other) => (other === key ? update(key) : other)) }
}

function secretOf(secret: string, createdAt: string) {
  return { sha256: Buffer.from(digestOf(secret), 'binary').toString('hex'), createdAt }
}
