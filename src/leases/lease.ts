/**
 * What a worker holds a job by: a token that says everything needed to settle it, sealed with SECRET (HMAC-SHA-256, RFC
 * 2104), so that every replica can, after a restart too, and nobody can make one up. It is opaque to clients.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { SluiceError } from '../errors.ts'
import type { Held } from '../queues/work.ts'

export interface LeaseSealer {
  seal(held: Held): string
  /** Throws INVALID_LEASE for what was not sealed with this secret. */
  open(lease: string): Held
}

/** Half of the digest: 128 bits. */
const MAC_BYTES = 16

export function createLeaseSealer(secret: string): LeaseSealer {
  const macOf = (text: string) => createHmac('sha256', secret).update(text).digest().subarray(0, MAC_BYTES)

  return {
    seal({ queue, key, token, opts, attemptsMade, attemptsStarted }) {
      const fields = [queue, key, token, opts, attemptsMade, attemptsStarted]
      const text = Buffer.from(JSON.stringify(fields)).toString('base64url')
      return `${text}.${macOf(text).toString('base64url')}`
    },
    open(lease) {
      const dot = lease.indexOf('.')
      const text = lease.slice(0, dot)
      const mac = Buffer.from(lease.slice(dot + 1), 'base64url')
      if (dot < 0 || mac.length !== MAC_BYTES || !timingSafeEqual(mac, macOf(text))) {
        throw new SluiceError('INVALID_LEASE')
      }
      const [queue, key, token, opts, attemptsMade, attemptsStarted] = JSON.parse(
        Buffer.from(text, 'base64url').toString(),
      ) as [string, string, string, string, number, number]
      return { queue, key, token, opts, attemptsMade, attemptsStarted }
    },
  }
}
