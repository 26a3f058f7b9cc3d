/**
 * What must be used again and never be shown again, as it is kept in Redis: AES-256-GCM under a key made of SECRET (HKDF,
 * RFC 5869). Whoever reads Redis or a backup of it learns no receiver's secret.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

export interface Vault {
  seal(text: string): string
  /** `undefined`: it was sealed with a secret that is not there any more. */
  open(sealed: string): string | undefined
}

const IV_BYTES = 12
const TAG_BYTES = 16

/** `secrets`: the first seals; what the others have sealed can be opened, while a secret is replaced. */
export function createVault(secrets: [string, ...string[]]): Vault {
  const keys = secrets.map((secret) => Buffer.from(hkdfSync('sha256', secret, '', 'sluice webhooks', 32)))

  function openWith(key: Buffer, sealed: Buffer): string | undefined {
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

  return {
    seal(text) {
      const iv = randomBytes(IV_BYTES)
      const cipher = createCipheriv('aes-256-gcm', keys[0]!, iv)
      const sealed = Buffer.concat([iv, cipher.update(text, 'utf8'), cipher.final()])
      return Buffer.concat([sealed, cipher.getAuthTag()]).toString('base64url')
    },
    open(sealed) {
      const bytes = Buffer.from(sealed, 'base64url')
      for (const key of keys) {
        const text = openWith(key, bytes)
        if (text !== undefined) return text
      }
      return undefined
    },
  }
}
