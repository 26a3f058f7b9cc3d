/**
 * A batch: every item stands alone. What does not fit is told with its place; what fits is stored; one answer says what
 * became of each, in the order of the request.
 */
import { setImmediate } from 'node:timers/promises'
import type { Access } from '../../auth/access.ts'
import { SluiceError, toProblem } from '../../errors.ts'
import { createValidator } from '../../validation.ts'
import type { Enqueuer, Stored } from './enqueuer.ts'
import type { NewJob } from './new-job.ts'
import { BatchItem, type BatchResult, type NewJobBody } from './schemas.ts'

export interface BatchResponse {
  /** 201: all are there. 207: some are not. 422: none is. */
  status: 201 | 207 | 422
  body: BatchResult
}

/** `idempotencyKey`: of the batch, for each job that has none of its own. */
export type AddBatch = (
  items: unknown[],
  access: Access,
  idempotencyKey: string | undefined,
) => Promise<BatchResponse>

/** Longest that the items of one batch hold the event loop at a time. */
const TURN_MS = 10

type Item = BatchResult['results'][number]
type ToNewJob = (body: NewJobBody, idempotency?: NewJob['idempotency']) => NewJob

/** `toNewJob` fills in what a job leaves out. Rejects when nothing could be stored for a reason that may pass. */
export function createAddBatch(enqueuer: Enqueuer, toNewJob: ToNewJob): AddBatch {
  const validate = createValidator(BatchItem)

  /** The job that an item asks for, or why it cannot be had. */
  function read(item: unknown, index: number, access: Access, batchKey: string | undefined) {
    const invalid = validate(item)
    if (invalid) {
      return new SluiceError(invalid.code === 'INVALID_NAME' ? 'INVALID_NAME' : 'INVALID_ITEM', {
        errors: invalid.errors,
        outcome: 'not_executed',
      })
    }
    // With a space no client's own key can be the same.
    const { idempotencyKey: key = batchKey && `${batchKey} ${index}` } = item as BatchItem
    const job = toNewJob(item as BatchItem, key ? { owner: access.keyId, key } : undefined)
    if (access.canAccessQueue(job.queue)) return job
    return new SluiceError('QUEUE_NOT_FOUND', { outcome: 'not_executed' })
  }

  return async (items, access, batchKey) => {
    const asked: (NewJob | SluiceError)[] = []
    let began = performance.now()
    for (const [index, item] of items.entries()) {
      asked.push(read(item, index, access, batchKey))
      if (performance.now() - began < TURN_MS) continue
      // Others are waiting too.
      await setImmediate()
      began = performance.now()
    }
    const added = enqueuer.addMany(asked.filter((job): job is NewJob => !(job instanceof SluiceError)))
    let next = 0
    const settled = await Promise.allSettled(
      asked.map((job) => (job instanceof SluiceError ? Promise.reject(job) : added[next++]!)),
    )
    const failures = settled.flatMap((result) =>
      result.status === 'rejected' ? [result.reason as SluiceError] : [],
    )
    if (failures.length === items.length) throwIfPassing(failures)
    return answer(settled.map(toResult), failures.length)
  }
}

/** Nothing is stored, and for some of it that may change: then the whole batch may be repeated, and 503 says so. */
function throwIfPassing(failures: SluiceError[]): void {
  const passing = failures.find((failure) => toProblem(failure).status >= 500)
  if (!passing) return
  throw new SluiceError(passing.code, {
    ...passing.details,
    outcome: failures.some((failure) => failure.details.outcome === 'unknown') ? 'unknown' : 'not_executed',
    ids: failures.flatMap((failure) => failure.details.ids ?? []),
  })
}

function toResult(settled: PromiseSettledResult<Stored>, index: number): Item {
  if (settled.status === 'fulfilled') {
    const { queue, key, state, deduplicated } = settled.value
    return { index, status: deduplicated ? 200 : 201, id: `${queue}:${key}`, state, deduplicated }
  }
  const error = settled.reason as unknown
  const known = error instanceof SluiceError ? error : new SluiceError('INTERNAL', { cause: error })
  const problem = toProblem(known)
  // The pointer is into the body that the client sent, not into the item.
  const errors = problem.errors?.map((fault) => ({ ...fault, pointer: `/jobs/${index}${fault.pointer}` }))
  return { index, status: problem.status, error: errors ? { ...problem, errors } : problem }
}

function answer(results: Item[], failed: number): BatchResponse {
  const deduplicated = results.filter((result) => result.deduplicated).length
  const created = results.length - failed - deduplicated
  const status = failed === 0 ? 201 : failed === results.length ? 422 : 207
  return { status, body: { created, deduplicated, failed, results } }
}
