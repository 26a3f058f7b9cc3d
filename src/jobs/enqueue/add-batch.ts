/**
 * Enqueues a batch whose items are independent: those that are valid are stored, and the response has a result for every
 * item, in the order of the request.
 */
import { setImmediate } from 'node:timers/promises'
import type { Access } from '../../auth/access.ts'
import { asSluiceError, SluiceError, toProblem } from '../../errors.ts'
import { createValidator } from '../../validation.ts'
import type { EnqueuedJob } from './enqueue-outcome.ts'
import type { Enqueuer } from './enqueuer.ts'
import type { NewJob } from './new-job.ts'
import { BatchItem, type BatchResult } from './schemas.ts'
import type { ToNewJob } from './to-new-job.ts'

export interface BatchResponse {
  /** 201: every job exists. 207: some do not. 422: none does. */
  status: 201 | 207 | 422
  body: BatchResult
}

/**
 * `batchKey`: the idempotency key of the batch, for each job that has none of its own. Rejects when no job was stored and a
 * repeat may succeed.
 */
export type AddBatch = (
  items: unknown[],
  access: Access,
  batchKey: string | undefined,
) => Promise<BatchResponse>

/** Longest time for which the items of a batch are turned into jobs at a stretch; one item may take longer. */
const TURN_MS = 10

type ItemResult = BatchResult['results'][number]

export function createAddBatch(enqueuer: Enqueuer, toNewJob: ToNewJob): AddBatch {
  const validate = createValidator(BatchItem)

  /** The job that the item describes, or why it is refused. */
  function parseItem(item: unknown, index: number, access: Access, batchKey: string | undefined) {
    // The scan of the body refused it.
    if (item instanceof SluiceError)
      return new SluiceError(item.code, { ...item.details, outcome: 'not_executed' })
    const invalid = validate(item)
    if (invalid) {
      return new SluiceError(invalid.code === 'INVALID_NAME' ? 'INVALID_NAME' : 'INVALID_ITEM', {
        errors: invalid.errors,
        outcome: 'not_executed',
      })
    }
    // The keys that clients choose contain no space, so none can equal this one.
    const { idempotencyKey: key = batchKey && `${batchKey} ${index}` } = item as BatchItem
    const job = toNewJob(item as BatchItem, key ? { owner: access.keyId, key } : undefined)
    if (access.canAccessQueue(job.queue)) return job
    return new SluiceError('QUEUE_NOT_FOUND', { outcome: 'not_executed' })
  }

  return async function addBatch(items, access, batchKey) {
    const parsed: (NewJob | SluiceError)[] = []
    let startedAt = performance.now()
    for (const [index, item] of items.entries()) {
      parsed.push(parseItem(item, index, access, batchKey))
      if (performance.now() - startedAt < TURN_MS) continue
      // Let other requests run.
      await setImmediate()
      startedAt = performance.now()
    }
    const added = enqueuer.addMany(parsed.filter((job): job is NewJob => !(job instanceof SluiceError)))
    let next = 0
    const settled = await Promise.allSettled(
      parsed.map((job) => (job instanceof SluiceError ? Promise.reject(job) : added[next++]!)),
    )
    const failures = settled.flatMap((result) =>
      result.status === 'rejected' ? [result.reason as SluiceError] : [],
    )
    if (failures.length === items.length) throwIfRetryable(failures)
    return toResponse(settled.map(toItemResult), failures.length)
  }
}

/** No job was stored. If that may change for one of them, the client should repeat the whole batch, so the request fails. */
function throwIfRetryable(failures: SluiceError[]): void {
  const retryable = failures.find((failure) => toProblem(failure).status >= 500)
  if (!retryable) return
  throw new SluiceError(retryable.code, {
    ...retryable.details,
    outcome: failures.some((failure) => failure.details.outcome === 'unknown') ? 'unknown' : 'not_executed',
    ids: failures.flatMap((failure) => failure.details.ids ?? []),
  })
}

function toItemResult(settled: PromiseSettledResult<EnqueuedJob>, index: number): ItemResult {
  if (settled.status === 'fulfilled') {
    const { queue, key, state, deduplicated } = settled.value
    return { index, status: deduplicated ? 200 : 201, id: `${queue}:${key}`, state, deduplicated }
  }
  const problem = toProblem(asSluiceError(settled.reason))
  // Pointers refer to the body of the request.
  const errors = problem.errors?.map((field) => ({ ...field, pointer: `/jobs/${index}${field.pointer}` }))
  return { index, status: problem.status, error: errors ? { ...problem, errors } : problem }
}

function toResponse(results: ItemResult[], failed: number): BatchResponse {
  const deduplicated = results.filter((result) => result.deduplicated).length
  const created = results.length - failed - deduplicated
  const status = failed === 0 ? 201 : failed === results.length ? 422 : 207
  return { status, body: { created, deduplicated, failed, results } }
}
