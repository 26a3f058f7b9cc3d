/**
 * Standard Webhooks signatures (https://www.standardwebhooks.com): they prove to an endpoint that this
 * service sent the request and that it was not altered. While a secret is being rotated, the header carries
 * one signature for each active secret.
 */
import { createHmac, randomBytes } from 'node:crypto'

const PREFIX = 'whsec_'
const MIN_BYTES = 24
const MAX_BYTES = 64

export function createSigningSecret(): string {
  return `${PREFIX}${randomBytes(32).toString('base64')}`
}

/** Whether `text` is `whsec_` followed by the padded base64 of 24 to 64 bytes. */
export function isSecret(text: string): boolean {
  if (!text.startsWith(PREFIX)) return false
  const key = decodeKey(text)
  // Node ignores characters that are not base64; the endpoint's library may not.
  return key.length >= MIN_BYTES && key.length <= MAX_BYTES && text === `${PREFIX}${key.toString('base64')}`
}

/** The value of `webhook-signature`. `timestampS`: whole seconds since 1970, as in `webhook-timestamp`. */
export function sign(secrets: string[], id: string, timestampS: number, body: string | Buffer): string {
  return secrets.map((secret) => `v1,${hmac(secret, id, timestampS, body)}`).join(' ')
}

function hmac(secret: string, id: string, timestampS: number, body: string | Buffer): string {
  // A malformed secret decodes to an empty or short key, with which anyone could forge a signature.
  if (!isSecret(secret)) throw new Error('A webhook secret is not of the form whsec_<base64>')
  return createHmac('sha256', decodeKey(secret)).update(`${id}.${timestampS}.`).update(body).digest('base64')
}

function decodeKey(secret: string): Buffer {
  return Buffer.from(secret.slice(PREFIX.length), 'base64')
}
