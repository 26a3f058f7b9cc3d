/** A job before it is stored, and the checks that its schema cannot express. */
import type { JobsOptions } from 'bullmq'
import { SluiceError } from '../../errors.ts'
import type { IdempotencyRecord } from '../../redis/scripts/enqueue.ts'

/** A job as requested; it already fits the schema. */
export interface NewJob {
  queue: string
  name: string
  /** The JSON text without white space between tokens. May be a view of the body of the request. */
  data: Buffer
  opts: JobsOptions
  /** A generated key (`Enqueuer.newKey`), for a caller that needs it before the job is stored. `opts.jobId` takes precedence. */
  key?: string
  /** The record of its idempotency key. */
  idempotency?: IdempotencyRecord | undefined
}

/** The data of a job that was requested without any. Never written to. */
export const noData = Buffer.from('{}')

/** The options of a job that was requested without any. Compared by identity. */
export const noOptions: Record<string, never> = Object.freeze({})

/** JSON can express half of a surrogate pair, but UTF-8 cannot: Redis would store a different text from the one reported. */
const LONE_SURROGATE = /\p{Surrogate}/u

/** Throws INVALID_NAME for a name or deduplication id that UTF-8 cannot represent. */
export function checkTexts({ name, opts }: NewJob): void {
  const id = opts.deduplication?.id
  const pointer = LONE_SURROGATE.test(name)
    ? '/name'
    : id !== undefined && LONE_SURROGATE.test(id)
      ? '/opts/deduplication/id'
      : undefined
  if (pointer === undefined) return
  const detail = 'contains half of a surrogate pair; send well-formed Unicode'
  throw new SluiceError('INVALID_NAME', { errors: [{ pointer, detail }], outcome: 'not_executed' })
}

/** Throws INVALID_OPTION for data larger than opts.sizeLimit. */
export function checkSize({ data, opts }: NewJob): void {
  const limit = opts.sizeLimit
  if (limit === undefined || data.length <= limit) return
  const detail = `is ${data.length} bytes of JSON, and opts.sizeLimit is ${limit}; send less, or raise the limit`
  throw new SluiceError('INVALID_OPTION', { errors: [{ pointer: '/data', detail }], outcome: 'not_executed' })
}
