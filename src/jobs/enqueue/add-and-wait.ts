/**
 * Enqueue a job and wait for it. It is heard of from before it is stored, so that its end is told even when it comes at
 * once and nothing of the job is kept.
 */

import { uuidv7 } from '../job-id.ts'
import { etagOf, resourceOfNewJob } from '../status/job-resource.ts'
import type { Until } from '../status/polling.ts'
import type { CachedJob } from '../status/cache-entry.ts'
import type { Waiters } from '../status/waiters.ts'
import type { Enqueuer, Stored } from './enqueuer.ts'
import type { NewJob } from './new-job.ts'

export interface WaitedFor {
  stored: Stored
  /** `undefined`: it is stored, and nobody can say more of it now. */
  job: CachedJob | undefined
}

export interface AddAndWaitRequest {
  job: NewJob
  until: Until
  waitMs: number
  /** Is given what to call when the client leaves; the job stays. */
  onWait(leave: () => void): void
}

/** Rejects as `Enqueuer.add` does; once the job is stored, never. */
export type AddAndWait = (request: AddAndWaitRequest) => Promise<WaitedFor>

export function createAddAndWait(enqueuer: Enqueuer, waiters: Waiters): AddAndWait {
  return async ({ job, until, waitMs, onWait }) => {
    const key = job.opts.jobId ?? uuidv7(Date.now())
    // Where Redis cannot be asked, the enqueue says so, with the outcome.
    const expected = await waiters.expect({ queue: job.queue, key }).catch(() => undefined)
    try {
      const stored = await enqueuer.add({ ...job, key })
      const known = stored.deduplicated ? undefined : resourceOfNewJob(stored, created(stored), job.opts)
      const wait = waiters.wait({
        ...{ ref: { queue: stored.queue, key: stored.key }, include: { data: false, logs: false } },
        ...{ until, etag: known && etagOf(known), known, waitMs },
      })
      onWait(() => {
        wait.leave()
        expected?.release()
      })
      const found = await wait.result.catch(() => undefined)
      return { stored, job: found?.job }
    } finally {
      expected?.release()
    }
  }
}

function created({ name, state, timestamp }: Stored) {
  return { name: name!, state: state!, timestamp: timestamp! }
}
