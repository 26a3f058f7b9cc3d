/**
 * Encrypts signing secrets and header values before they are stored in Redis: AES-256-GCM with a key derived
 * from SECRET by HKDF (RFC 5869). Read access to Redis, or to a backup of it, reveals none of them.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

export interface Vault {
  /** Encrypts `text` with a new random IV: sealing the same text twice gives different results. Base64url. */
  seal(text: string): string
  /**
   * Decrypts; `undefined` when the text was sealed with a secret that is no longer configured, or was
   * altered.
   */
  open(sealed: string): string | undefined
}

const IV_BYTES = 12
const TAG_BYTES = 16

/** The first secret seals. The others still open the values that they sealed, so that SECRET can be rotated. */
export function createVault(secrets: [string, ...string[]]): Vault {
  const keys = secrets.map(deriveKey)

  return {
    seal(text) {
      const iv = randomBytes(IV_BYTES)
      const cipher = createCipheriv('aes-256-gcm', keys[0]!, iv)
      const ciphertext = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
      return Buffer.concat([iv, ciphertext, cipher.getAuthTag()]).toString('base64url')
    },
    open(sealed) {
      const bytes = Buffer.from(sealed, 'base64url')
      for (const key of keys) {
        const text = decrypt(key, bytes)
        if (text !== undefined) return text
      }
      return undefined
    },
  }
}

function deriveKey(secret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', 'sluice webhooks', 32))
}

/** `sealed`: IV, ciphertext, authentication tag. */
function decrypt(key: Buffer, sealed: Buffer): string | undefined {
  const tagAt = sealed.length - TAG_BYTES
  if (tagAt < IV_BYTES) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, IV_BYTES))
  decipher.setAuthTag(sealed.subarray(tagAt))
  try {
    return decipher.update(sealed.subarray(IV_BYTES, tagAt), undefined, 'utf8') + decipher.final('utf8')
  } catch {
    return undefined
  }
}
