/**
 * Finds jobs whose lease could not be sent back. The token of a lease contains the job's id, which a producer other than this
 * service may have made of any length, and a request that settles a job is bounded.
 */
import type { JobLease } from '../bullmq/job-lease.ts'
import type { LeaseSealer } from './lease-token.ts'
import { LEASE_MAX } from './schemas.ts'

/** The rest of the smallest request that settles a job, and some space. */
const ENVELOPE_BYTES = 256
/** Characters of a token for each of the job's id, at most: 6 bytes as JSON (\u0000), and 4 of base64 for 3 bytes. */
const EXPANSION = 8
/** Characters of a token without the job's id, at most. */
const REST_MAX = 4_096

/** Returns why a worker could not settle the job; `undefined`: it can. */
export type WhyUnsettleable = (job: JobLease) => string | undefined

/** `bodyMaxBytes`: most bytes of a request. */
export function createLeaseLimit(sealer: Pick<LeaseSealer, 'seal'>, bodyMaxBytes: number): WhyUnsettleable {
  const max = Math.min(LEASE_MAX, bodyMaxBytes - ENVELOPE_BYTES)
  return (job) => {
    // To seal costs more than to estimate.
    if (job.key.length * EXPANSION + REST_MAX <= max) return undefined
    const { length } = sealer.seal(job)
    if (length <= max) return undefined
    return (
      `Malformed job: its id has ${job.key.length} characters, so the lease of an HTTP worker would have ${length}, and ` +
      `at most ${max} can be sent back`
    )
  }
}
