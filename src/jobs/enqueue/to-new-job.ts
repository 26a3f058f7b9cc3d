/** Turns a valid body into a new job: fills in what the request leaves out, and identifies the payload by its idempotency key. */
import { createJsonTexts } from '../../json/canonical-text.ts'
import type { RawJson } from '../../json/json-scanner.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import { type ClientKey, createIdempotencyRecords } from './idempotency.ts'
import { type NewJob, noData, noOptions } from './new-job.ts'
import type { NewJobBody } from './schemas.ts'

/** With a client key, a MiB of data that is all names out of order or long numbers takes up to some hundreds of ms. */
export type ToNewJob = (body: NewJobBody, clientKey: ClientKey | undefined) => NewJob

export function createToNewJob(defaultQueue: string, keyspace: Keyspace): ToNewJob {
  const texts = createJsonTexts()
  const recordOf = createIdempotencyRecords(keyspace)

  return ({ queue = defaultQueue, name, data, opts = noOptions }, clientKey) => {
    const job = {
      queue,
      name,
      // As newJobShape has it.
      data: data === undefined ? noData : texts.compact(data as RawJson),
      opts,
      idempotency: undefined,
    } as NewJob
    if (clientKey) job.idempotency = recordOf(clientKey, job)
    return job
  }
}
