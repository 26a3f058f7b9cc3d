/**
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): which record in Redis a key is, and the fingerprint that
 * tells whether a payload is the one that came with it. The record is read and written by enqueue.lua, with the job.
 */

import { hash } from 'node:crypto'
import { stringify } from 'safe-stable-stringify'
import { SluiceError } from '../../errors.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import type { IdempotencyRecord } from '../../redis/scripts/enqueue.ts'

/** 1 to 255 visible characters of ASCII. */
export const IDEMPOTENCY_KEY_PATTERN = '^[\\x21-\\x7e]{1,255}$'

/**
 * The record of a client's key. API keys never meet: the id of one holds no colon, so that no two join to the same text.
 * Queues do: a key that comes with another queue comes with another payload.
 */
export function createIdempotency(keyspace: Keyspace) {
  return (owner: string, idempotencyKey: string, payload: object): IdempotencyRecord => ({
    key: keyspace.idempotencyRecord(digest(`${owner}:${idempotencyKey}`)),
    fingerprint: digest(stringify(payload)!),
  })
}

/** 128 bits: nobody gains by finding two that collide among their own. */
function digest(text: string): string {
  return hash('sha256', text, 'base64url').slice(0, 22)
}

const pattern = new RegExp(IDEMPOTENCY_KEY_PATTERN)

/** Reads the header; `undefined` when there is none. Throws INVALID_REQUEST for what cannot be one. */
export function idempotencyKeyOf(header: string | string[] | undefined): string | undefined {
  if (header === undefined || (typeof header === 'string' && pattern.test(header))) return header
  const detail = 'must be 1 to 255 visible characters of ASCII, without spaces'
  throw new SluiceError('INVALID_REQUEST', {
    errors: [{ pointer: 'Idempotency-Key', detail }],
    outcome: 'not_executed',
  })
}
