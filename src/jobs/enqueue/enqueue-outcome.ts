/** What the caller of an enqueue receives for each job: the job that now exists, or an error that carries its id. */

import type { JobState } from '../../bullmq/job-states.ts'
import { SluiceError } from '../../errors.ts'
import { classifyRedisError } from '../../redis/redis-errors.ts'
import type { EnqueueItem, EnqueueResult } from '../../redis/scripts/enqueue.ts'
import { initialState } from './prepare-job.ts'

/** The job that exists after an enqueue. `null` in a field: that job has been removed since. */
export interface EnqueuedJob {
  queue: string
  /** BullMQ's id. Not the requested one when the job was deduplicated. */
  key: string
  name: string | null
  state: JobState | null
  /** Milliseconds since 1970. */
  timestamp: number | null
  /** Nothing was stored: the job existed already. */
  deduplicated: boolean
  /** The idempotency key had been used: this is the job of the first request with it. */
  replayed: boolean
}

/** `unconfirmed`: why a job that Redis has stored may still be lost. */
export function toOutcome(
  queue: string,
  item: EnqueueItem,
  result: EnqueueResult,
  unconfirmed: SluiceError | undefined,
): EnqueuedJob | SluiceError {
  switch (result.kind) {
    case 'keyReused':
      return new SluiceError('IDEMPOTENCY_KEY_REUSED', { outcome: 'not_executed' })
    case 'failed':
      return withJobId(toJobError(result.error), queue, item.key)
    case 'created':
      if (unconfirmed) return withJobId(unconfirmed, queue, item.key)
      return {
        queue,
        key: item.key,
        name: item.name,
        state: initialState(item.options),
        timestamp: item.timestamp,
        deduplicated: false,
        replayed: false,
      }
    default:
      if (unconfirmed) return withJobId(unconfirmed, queue, result.key)
      return {
        queue,
        key: result.key,
        name: result.name,
        state: result.state,
        timestamp: result.timestamp,
        deduplicated: true,
        replayed: result.kind === 'replayed',
      }
  }
}

/** enqueue.lua removes everything that it wrote for a failed job, so the outcome is certain. */
function toJobError(text: string): SluiceError {
  const { code } = classifyRedisError(text)
  return new SluiceError(code, {
    ...(code === 'QUEUE_DAMAGED' ? { detail: damagedDetail(text) } : {}),
    outcome: 'not_executed',
    cause: new Error(text),
  })
}

function damagedDetail(text: string): string {
  return `Redis refused the job: ${text.slice(0, 120)}. Repair or delete the key of this queue that has the wrong type.`
}

/**
 * Returns a copy of the error with the id of one job; a whole batch may share `error`. IDEMPOTENCY_KEY_REUSED and
 * INVALID_NAME have no id, because a repeat cannot store the job either.
 */
export function withJobId<E>(error: E, queue: string, key: string): E | SluiceError {
  if (!(error instanceof SluiceError) || WITHOUT_ID.has(error.code)) return error
  return new SluiceError(error.code, { ...error.details, ids: [`${queue}:${key}`] })
}

const WITHOUT_ID: ReadonlySet<string> = new Set(['IDEMPOTENCY_KEY_REUSED', 'INVALID_NAME'])
