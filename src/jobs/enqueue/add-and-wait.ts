/**
 * Enqueues a job and waits for it. The queue is followed before the job is stored, so the result is known even if the job
 * finishes at once and is removed.
 */

import type { CachedJob, Found } from '../status/cache-entry.ts'
import { etagOf, resourceOfNewJob } from '../status/job-resource.ts'
import type { Until } from '../status/polling.ts'
import type { Wait, Waiters } from '../status/waiting/waiters.ts'
import type { EnqueuedJob } from './enqueue-outcome.ts'
import type { Enqueuer } from './enqueuer.ts'
import type { NewJob } from './new-job.ts'

export interface AddAndWaitResult {
  enqueued: EnqueuedJob
  /** The job after the wait. `undefined`: it is stored, but its status cannot be read now. */
  job: CachedJob | undefined
}

export interface AddAndWaitRequest extends WaitTerms {
  job: NewJob
}

export interface WaitTerms {
  until: Until
  waitMs: number
  /** Ends the wait, for example when the client disconnects; the job stays. */
  signal: AbortSignal
}

/** Rejects as `Enqueuer.add` does; never once the job is stored. */
export type AddAndWait = (request: AddAndWaitRequest) => Promise<AddAndWaitResult>

/** A stored job, and its expectation, which the wait replaces. */
interface Stored {
  enqueued: EnqueuedJob
  expected: { release(): void } | undefined
}

export function createAddAndWait(enqueuer: Enqueuer, waiters: Waiters): AddAndWait {
  async function store(job: NewJob): Promise<Stored> {
    const key = job.opts.jobId ?? enqueuer.newKey()
    // If Redis is unreachable, the enqueue rejects with a better error, which has an outcome.
    const expected = await waiters.expect({ queue: job.queue, key }).catch(() => undefined)
    try {
      return { enqueued: await enqueuer.add({ ...job, key }), expected }
    } catch (error) {
      expected?.release()
      throw error
    }
  }

  async function waitFor(
    { enqueued, expected }: Stored,
    opts: NewJob['opts'],
    { until, waitMs, signal }: WaitTerms,
  ): Promise<AddAndWaitResult> {
    try {
      const known = enqueued.deduplicated ? undefined : resourceOfEnqueued(enqueued, opts)
      const wait = waiters.wait({
        ref: { queue: enqueued.queue, key: enqueued.key },
        include: { data: false, logs: false },
        until,
        etag: known && etagOf(known),
        known,
        waitMs,
      })
      const found = await resultOf(wait, signal)
      return { enqueued, job: found?.job }
    } finally {
      expected?.release()
    }
  }

  // Two steps, because a wait must not keep the data of its job in memory.
  return ({ job, until, waitMs, signal }) => {
    const { opts } = job
    return store(job).then((stored) => waitFor(stored, opts, { until, waitMs, signal }))
  }
}

/** `undefined`: the job cannot be read, or the wait was ended. */
function resultOf({ result, leave }: Wait, signal: AbortSignal): Promise<Found | undefined> {
  return new Promise((resolve) => {
    const end = () => {
      leave()
      resolve(undefined)
    }
    if (signal.aborted) return end()
    signal.addEventListener('abort', end, { once: true })
    result.then(resolve, () => resolve(undefined))
  })
}

/** The resource of a job that was created, not deduplicated. */
export function resourceOfEnqueued(enqueued: EnqueuedJob, opts: NewJob['opts']) {
  const { name, state, timestamp } = enqueued
  return resourceOfNewJob(enqueued, { name: name!, state: state!, timestamp: timestamp! }, opts)
}
