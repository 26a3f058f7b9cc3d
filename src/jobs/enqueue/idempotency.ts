/**
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): parses the header, and derives the idempotency record, whose
 * fingerprint identifies the payload. enqueue.lua reads and writes the record together with the job.
 */

import { hash } from 'node:crypto'
import { stringify } from 'safe-stable-stringify'
import { SluiceError } from '../../errors.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import type { IdempotencyRecord } from '../../redis/scripts/enqueue.ts'
import type { NewJob } from './new-job.ts'

/** 1 to 255 visible ASCII characters. */
export const IDEMPOTENCY_KEY_PATTERN = '^[\\x21-\\x7e]{1,255}$'

const pattern = new RegExp(IDEMPOTENCY_KEY_PATTERN)

/**
 * The record of a job that was sent with an idempotency key. Each API key has its own records: its id contains no colon, so
 * two owners never derive the same one. Queues share them, and the queue is part of the payload.
 */
export function idempotencyRecordOf(
  keyspace: Keyspace,
  { idempotency, queue, name, data, opts }: NewJob,
): IdempotencyRecord | undefined {
  if (!idempotency) return undefined
  return {
    key: keyspace.idempotencyRecord(digest(`${idempotency.owner}:${idempotency.key}`)),
    fingerprint: digest(stringify({ queue, name, data, opts })!),
  }
}

/** 128 bits are enough: a client that finds a collision finds it among its own keys only. */
function digest(text: string): string {
  return hash('sha256', text, 'base64url').slice(0, 22)
}

/** Parses the header; `undefined` when there is none. Throws INVALID_REQUEST for text that cannot be a key. */
export function parseIdempotencyKey(header: string | string[] | undefined): string | undefined {
  if (header === undefined || (typeof header === 'string' && pattern.test(header))) return header
  throw new SluiceError('INVALID_REQUEST', {
    errors: [
      {
        pointer: 'Idempotency-Key',
        detail: 'is not a valid key; send 1 to 255 visible ASCII characters, without spaces',
      },
    ],
    outcome: 'not_executed',
  })
}
