/**
 * Idempotency keys: a job that is sent again with its key is the first one. Redis keeps a record for each key, whose fingerprint
 * identifies the payload. enqueue.lua reads and writes the record together with the job.
 */

import { createHash, hash } from 'node:crypto'
import { stringify } from 'safe-stable-stringify'
import { SluiceError } from '../../errors.ts'
import { createJsonTexts } from '../../json/canonical-text.ts'
import { createRounding } from '../../json/rounded-text.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import type { IdempotencyRecord } from '../../redis/scripts/enqueue.ts'
import type { NewJob } from './new-job.ts'

/** 1 to 255 visible ASCII characters. */
export const IDEMPOTENCY_KEY_PATTERN = '^[\\x21-\\x7e]{1,255}$'

const pattern = new RegExp(IDEMPOTENCY_KEY_PATTERN)

/** An idempotency key, and the id of the API key with which it was sent. */
export interface ClientKey {
  owner: string
  key: string
}

export type IdempotencyRecordOf = (clientKey: ClientKey, job: NewJob) => IdempotencyRecord

/**
 * Each API key has its own records: its id contains no colon, so two owners never derive the same one. Queues share them, and
 * the queue is part of the payload.
 */
export function createIdempotencyRecords(keyspace: Keyspace): IdempotencyRecordOf {
  const texts = createJsonTexts()
  const round = createRounding()

  return function recordOf({ owner, key }, { queue, name, data, opts }) {
    const others = stringify({ name, opts, queue })!.slice(1)
    const canonical = texts.canonical({ body: data, start: 0, end: data.length, spaces: 0 })
    const fingerprint = fingerprintOf(canonical, others)
    const rounded = round(canonical)
    return {
      key: keyspace.idempotencyRecord(digest(`${owner}:${key}`)),
      fingerprint,
      roundedFingerprint: rounded === canonical ? fingerprint : fingerprintOf(rounded, others),
    }
  }
}

/** Of the payload as one object with its members in order of their names. `others`: those after `data`. */
function fingerprintOf(data: Buffer, others: string): string {
  return createHash('sha256')
    .update('{"data":')
    .update(data)
    .update(',')
    .update(others)
    .digest('base64url')
    .slice(0, DIGEST_CHARS)
}

/** 128 bits are enough: a client that finds a collision finds it among its own keys only. */
const DIGEST_CHARS = 22

function digest(text: string): string {
  return hash('sha256', text, 'base64url').slice(0, DIGEST_CHARS)
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
