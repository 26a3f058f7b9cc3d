/**
 * Standard Webhooks (https://www.standardwebhooks.com): what lets a receiver know that a request is ours and was not
 * changed. Several secrets may be live, so that a receiver can change over: there is a signature for each.
 */
import { createHmac, randomBytes } from 'node:crypto'

const PREFIX = 'whsec_'
const MIN_BYTES = 24
const MAX_BYTES = 64

export function createSigningSecret(): string {
  return `${PREFIX}${randomBytes(32).toString('base64')}`
}

/** `whsec_` and the base64 of 24 to 64 bytes, padded. */
export function isSecret(text: string): boolean {
  if (!text.startsWith(PREFIX)) return false
  const key = keyOf(text)
  // Node passes over what is no base64; receivers do not.
  return key.length >= MIN_BYTES && key.length <= MAX_BYTES && text === `${PREFIX}${key.toString('base64')}`
}

/** The value of `webhook-signature`. `timestampS`: whole seconds since 1970, as in `webhook-timestamp`. */
export function sign(secrets: string[], id: string, timestampS: number, body: string | Buffer): string {
  return secrets.map((secret) => `v1,${hmac(secret, id, timestampS, body)}`).join(' ')
}

function hmac(secret: string, id: string, timestampS: number, body: string | Buffer): string {
  // An unreadable secret would sign with a key that everybody has: none.
  if (!isSecret(secret)) throw new Error('A webhook secret is not of the form whsec_<base64>')
  return createHmac('sha256', keyOf(secret)).update(`${id}.${timestampS}.`).update(body).digest('base64')
}

function keyOf(secret: string): Buffer {
  return Buffer.from(secret.slice(PREFIX.length), 'base64')
}
