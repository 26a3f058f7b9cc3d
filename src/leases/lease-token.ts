/**
 * The opaque token by which a worker refers to its lease. It contains everything needed to settle the job and is sealed with
 * SECRET (HMAC-SHA-256, RFC 2104), so it cannot be forged, and every replica of this service accepts it, also after a restart.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { JobLease } from '../bullmq/job-lease.ts'
import { SluiceError } from '../errors.ts'

export interface LeaseSealer {
  seal(lease: JobLease): string
  /** Throws INVALID_LEASE if the token was not sealed with one of the secrets. */
  open(token: string): JobLease
}

/** Half of the digest: 128 bits. */
const MAC_BYTES = 16

/** The first secret seals. The others only open, while a secret is being replaced. */
export function createLeaseSealer(secrets: [string, ...string[]]): LeaseSealer {
  const macOf = (secret: string, text: string) =>
    createHmac('sha256', secret).update(text).digest().subarray(0, MAC_BYTES).toString('base64url')

  return {
    seal({ queue, key, token, opts, attemptsMade, attemptsStarted }) {
      const fields = [queue, key, token, opts, attemptsMade, attemptsStarted]
      const text = Buffer.from(JSON.stringify(fields)).toString('base64url')
      return `${text}.${macOf(secrets[0], text)}`
    },
    open(sealed) {
      const dot = sealed.lastIndexOf('.')
      const text = sealed.slice(0, dot)
      // Compared as text: base64url can spell the same bytes in several ways, and only our spelling is valid.
      const mac = Buffer.from(sealed.slice(dot + 1))
      const isSealedWith = (secret: string) => {
        const expected = Buffer.from(macOf(secret, text))
        return mac.length === expected.length && timingSafeEqual(mac, expected)
      }
      if (!secrets.some(isSealedWith)) throw new SluiceError('INVALID_LEASE')
      const [queue, key, token, opts, attemptsMade, attemptsStarted] = JSON.parse(
        Buffer.from(text, 'base64url').toString(),
      ) as [string, string, string, string, number, number]
      return { queue, key, token, opts, attemptsMade, attemptsStarted }
    },
  }
}
