/**
 * What a worker holds a job by: a token that says everything needed to settle it, sealed with SECRET (HMAC-SHA-256, RFC
 * 2104), so that every replica can, after a restart too, and nobody can make one up. It is opaque to clients.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { JobLease } from '../bullmq/job-lease.ts'
import { SluiceError } from '../errors.ts'

export interface LeaseSealer {
  seal(held: JobLease): string
  /** Throws INVALID_LEASE for what was not sealed with one of the secrets. */
  open(lease: string): JobLease
}

/** Half of the digest: 128 bits. */
const MAC_BYTES = 16

/** `secrets`: the first seals; leases of the others are good as well, while a secret is replaced. */
export function createLeaseSealer(secrets: [string, ...string[]]): LeaseSealer {
  const sealOf = (secret: string, text: string) =>
    createHmac('sha256', secret).update(text).digest().subarray(0, MAC_BYTES).toString('base64url')

  return {
    seal({ queue, key, token, opts, attemptsMade, attemptsStarted }) {
      const fields = [queue, key, token, opts, attemptsMade, attemptsStarted]
      const text = Buffer.from(JSON.stringify(fields)).toString('base64url')
      return `${text}.${sealOf(secrets[0], text)}`
    },
    open(lease) {
      const dot = lease.lastIndexOf('.')
      const text = lease.slice(0, dot)
      // As texts: one seal may be written in several ways, and only ours is one.
      const seal = Buffer.from(lease.slice(dot + 1))
      const isOurs = (secret: string) => {
        const own = Buffer.from(sealOf(secret, text))
        return seal.length === own.length && timingSafeEqual(seal, own)
      }
      if (!secrets.some(isOurs)) throw new SluiceError('INVALID_LEASE')
      const [queue, key, token, opts, attemptsMade, attemptsStarted] = JSON.parse(
        Buffer.from(text, 'base64url').toString(),
      ) as [string, string, string, string, number, number]
      return { queue, key, token, opts, attemptsMade, attemptsStarted }
    },
  }
}
