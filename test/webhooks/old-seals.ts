/** Seals as version 0.1.0 did: bound to nothing, without a version. */
import { createCipheriv, hkdfSync, randomBytes } from 'node:crypto'

export function sealOld(secret: string, text: string): string {
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'sluice webhooks', 32))
  const iv = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', key, iv)
  const ciphertext = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
  return Buffer.concat([iv, ciphertext, cipher.getAuthTag()]).toString('base64url')
}
