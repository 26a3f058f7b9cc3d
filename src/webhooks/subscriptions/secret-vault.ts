/**
 * Encrypts signing secrets and header values before they are stored in Redis: AES-256-GCM with a key derived
 * from SECRET by HKDF (RFC 5869). Read access to Redis, or to a backup of it, reveals none of them. A seal is bound to
 * where the value is used, so write access to Redis cannot have it sent anywhere else.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

export interface Vault {
  /**
   * Encrypts `text` with a new random IV: sealing the same text twice gives different results. `boundTo` is not stored;
   * without it the seal does not open.
   */
  seal(text: string, boundTo: string): string
  /**
   * Decrypts; `undefined` when the text was sealed with a secret that is no longer configured, is bound to something else,
   * or was altered.
   */
  open(sealed: string, boundTo: string): string | undefined
}

export interface VaultOptions {
  /** Whether to open seals of version 0.1.0, which are bound to nothing. */
  opensOldSeals?: boolean
}

/** The format. Base64url, which seals of version 0.1.0 are as a whole, has no dot. */
const PREFIX = 'v2.'
const IV_BYTES = 12
const TAG_BYTES = 16

/** Whether `sealed` is of version 0.1.0. */
export function isOldSeal(sealed: string): boolean {
  return !sealed.startsWith(PREFIX)
}

/** The first secret seals. The others still open the values that they sealed, so that SECRET can be rotated. */
export function createVault(
  secrets: [string, ...string[]],
  { opensOldSeals = false }: VaultOptions = {},
): Vault {
  const keys = secrets.map(deriveKey)

  return {
    seal(text, boundTo) {
      const iv = randomBytes(IV_BYTES)
      const cipher = createCipheriv('aes-256-gcm', keys[0]!, iv).setAAD(toAad(boundTo))
      const ciphertext = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
      return PREFIX + Buffer.concat([iv, ciphertext, cipher.getAuthTag()]).toString('base64url')
    },
    open(sealed, boundTo) {
      const isOld = isOldSeal(sealed)
      if (isOld && !opensOldSeals) return undefined
      const bytes = Buffer.from(isOld ? sealed : sealed.slice(PREFIX.length), 'base64url')
      for (const key of keys) {
        const text = decrypt(key, bytes, isOld ? undefined : toAad(boundTo))
        if (text !== undefined) return text
      }
      return undefined
    },
  }
}

function deriveKey(secret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', 'sluice webhooks', 32))
}

/** Never empty: GCM does not distinguish empty additional data from none, which is what old seals have. */
function toAad(boundTo: string): Buffer {
  return Buffer.from(PREFIX + boundTo)
}

/** `sealed`: IV, ciphertext, authentication tag. */
function decrypt(key: Buffer, sealed: Buffer, aad: Buffer | undefined): string | undefined {
  const tagAt = sealed.length - TAG_BYTES
  if (tagAt < IV_BYTES) return undefined
  const options = { authTagLength: TAG_BYTES }
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, IV_BYTES), options)
  decipher.setAuthTag(sealed.subarray(tagAt))
  if (aad) decipher.setAAD(aad)
  try {
    return decipher.update(sealed.subarray(IV_BYTES, tagAt), undefined, 'utf8') + decipher.final('utf8')
  } catch {
    return undefined
  }
}
