/**
 * Reads a subscription as Redis has it. Anything may have written the key, so a record is checked whole before it is used,
 * and one that is malformed is a value with a reason, never an exception.
 */
import { Type } from 'typebox'
import { ANY_REVISION, NO_REVISION } from '../../redis/scripts/put-subscription.ts'
import type { SubscriptionFields } from '../../redis/scripts/read-subscriptions.ts'
import { createValidator } from '../../validation.ts'
import { parseEndpointUrl } from '../endpoints/address-guard.ts'
import { MAX_SECRETS, type Subscription } from './subscription.ts'

export interface MalformedSubscription {
  queue: string
  /** The revision that a write has to expect. */
  revision: string
  /** What is wrong, for "The subscription of emails in Redis is malformed: …". It quotes no values. */
  problem: string
}

export type StoredSubscription = Subscription | MalformedSubscription

export function isMalformed(stored: StoredSubscription): stored is MalformedSubscription {
  return 'problem' in stored
}

const time = Type.String({ format: 'date-time' })
const timeOrNull = Type.Union([time, Type.Null()])
/** RFC 9110 §5.1: more than the API accepts, as earlier versions did. */
const HEADER_NAME = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"

const SubscriptionRecord = Type.Object({
  queue: Type.String(),
  keyId: Type.Optional(Type.String({ maxLength: 100 })),
  revision: Type.String({ minLength: 1, maxLength: 100 }),
  url: Type.String({ maxLength: 2_048 }),
  concurrency: Type.Integer({ minimum: 1, maximum: 1_000 }),
  timeoutMs: Type.Integer({ minimum: 100, maximum: 300_000 }),
  rateLimit: Type.Union([
    Type.Object({
      max: Type.Integer({ minimum: 1, maximum: 1_000_000 }),
      duration: Type.Integer({ minimum: 1, maximum: 86_400_000 }),
    }),
    Type.Null(),
  ]),
  headers: Type.Record(Type.String({ pattern: HEADER_NAME }), Type.String(), {
    maxProperties: 20,
    additionalProperties: false,
  }),
  secrets: Type.Array(
    Type.Object({ id: Type.String(), sealed: Type.String(), createdAt: time, expiresAt: timeOrNull }),
    { minItems: 1, maxItems: MAX_SECRETS },
  ),
  paused: Type.Union([Type.Object({ reason: Type.String(), at: time }), Type.Null()]),
  createdAt: time,
  updatedAt: time,
})

const validate = createValidator(SubscriptionRecord)

const unreadable = {
  wrongType: 'its key is not a hash',
  tooLarge: 'it is larger than any that this service writes',
}

/** `undefined`: there is none. */
export function parseSubscription(queue: string, fields: SubscriptionFields): StoredSubscription | undefined {
  if (fields === 'none') return undefined
  if (typeof fields === 'string') {
    const revision = fields === 'wrongType' ? NO_REVISION : ANY_REVISION
    return { queue, revision, problem: unreadable[fields] }
  }
  const { revision, json } = fields
  const value = parseJson(json)
  const problem = problemOf(queue, revision, value)
  return problem === undefined ? (value as Subscription) : { queue, revision: expectable(revision), problem }
}

/** A revision that is not text as this service writes it cannot be sent back unchanged. */
function expectable(revision: string): string {
  return /^[\w-]*$/.test(revision) ? revision : ANY_REVISION
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function problemOf(queue: string, revision: string, value: unknown): string | undefined {
  if (value === undefined) return 'it is not JSON'
  const [invalid] = validate(value)?.errors ?? []
  if (invalid) return `${invalid.pointer || 'it'} ${invalid.detail}`
  const record = value as Subscription
  if (record.queue !== queue) return '/queue is the name of another queue'
  if (record.revision !== revision) return '/revision is not the revision of its hash'
  if (record.secrets[0]!.expiresAt !== null) return '/secrets/0/expiresAt must be null'
  try {
    parseEndpointUrl(record.url)
  } catch {
    return '/url is not a URL that can be called'
  }
  return undefined
}
