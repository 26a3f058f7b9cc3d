/** A job before it is stored, and what its schema cannot say of it. */
import type { JobsOptions } from 'bullmq'
import { SluiceError } from '../../errors.ts'

/** A job as a client asks for it, already valid. */
export interface NewJob {
  queue: string
  name: string
  data: unknown
  opts: JobsOptions
  /** A key that was made here (uuidv7) before the job was handed over, where the client has chosen none. */
  key?: string
  /** The client's Idempotency-Key, and the API key that it came with. */
  idempotency?: { owner: string; key: string }
}

/** For a job that was asked for without any. */
export const noOptions: Record<string, never> = Object.freeze({})

/** Half of a surrogate pair can be said in JSON and not in UTF-8: another name would be stored than was told. */
const HALF_PAIR = /\p{Surrogate}/u

export function checkTexts({ name, opts }: NewJob): void {
  const id = opts.deduplication?.id
  const pointer = HALF_PAIR.test(name)
    ? '/name'
    : id !== undefined && HALF_PAIR.test(id)
      ? '/opts/deduplication/id'
      : undefined
  if (pointer === undefined) return
  const detail = 'holds half of a surrogate pair, which is no character'
  throw new SluiceError('INVALID_NAME', { errors: [{ pointer, detail }], outcome: 'not_executed' })
}

export function checkSize(job: NewJob, data: string): void {
  const limit = job.opts.sizeLimit
  if (limit === undefined || Buffer.byteLength(data) <= limit) return
  throw new SluiceError('INVALID_OPTION', {
    errors: [{ pointer: '/data', detail: `is larger than opts.sizeLimit, ${limit} bytes` }],
    outcome: 'not_executed',
  })
}
