/** The contract of subscriptions: shapes, bounds and their meaning. */
import { type Static, type TSchema, Type } from 'typebox'
import { QUEUE_PATTERN } from '../../queues/queue-registry.ts'
import { CONCURRENCY, OVERLAP_S, TIMEOUT_MS } from './subscription.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
const integer = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description })
const count = (description: string) => Type.Integer({ minimum: 0, description })
const time = (description: string) => Type.String({ format: 'date-time', description })
const orNull = <T extends TSchema>(schema: T, description: string) =>
  Type.Union([schema, Type.Null()], { description })

const RateLimit = Type.Object(
  {
    max: integer(1, 1_000_000, 'Most jobs in `duration`.'),
    duration: integer(1, 86_400_000, 'ms.'),
  },
  {
    ...strict,
    description: "BullMQ's rate limit of the queue's workers; a global one of the queue is stricter.",
  },
)

/** RFC 9110 §5.1 and §5.5; no control characters. */
const HEADER_NAME = '^[A-Za-z0-9!#$%&*+.^_|~-]{1,100}$'
const HEADER_VALUE = '^[\\x20-\\x7e]{0,2000}$'

export const SubscriptionParams = Type.Object({
  queue: Type.String({ pattern: QUEUE_PATTERN, description: 'The queue: 1 to 100 of A-Z a-z 0-9 _ - .' }),
})

export const SubscriptionBody = Type.Object(
  {
    url: Type.String({
      minLength: 1,
      maxLength: 2_048,
      description:
        'Where each job is POSTed: http or https, on the public internet or in WEBHOOK_ALLOW_CIDRS.',
    }),
    concurrency: optional(
      integer(1, 1_000, `Most deliveries at once, of all replicas together; ${CONCURRENCY} if missing.`),
    ),
    timeoutMs: optional(
      integer(
        100,
        300_000,
        `Until the last byte of the answer has to be there, ms; ${TIMEOUT_MS} if missing.`,
      ),
    ),
    secret: optional(
      Type.String({
        maxLength: 200,
        description:
          '`whsec_` and the base64 of 24 to 64 bytes. Missing: made at the first PUT, kept at later ones. Another than before: the ' +
          'one before signs beside it for a day.',
      }),
    ),
    rateLimit: optional(RateLimit),
    headers: optional(
      Type.Record(Type.String({ pattern: HEADER_NAME }), Type.String({ pattern: HEADER_VALUE }), {
        maxProperties: 20,
        description: 'Sent with each delivery, such as Authorization. Their values are not shown again.',
      }),
    ),
    paused: optional(Type.Boolean({ description: 'Send nothing for now; false if missing.' })),
  },
  { ...strict, title: 'SubscriptionRequest' },
)
export type SubscriptionBody = Static<typeof SubscriptionBody>

export const RotateBody = Type.Object(
  {
    overlap: optional(
      integer(
        0,
        2_592_000,
        `For how long the secrets before sign as well, s; ${OVERLAP_S} (a day) if missing.`,
      ),
    ),
  },
  { ...strict, title: 'SecretRotation' },
)

const Deliveries = Type.Object(
  {
    inFlight: count('On their way.'),
    delivered: count('Answered 2xx.'),
    retried: count('Failed, and given to the backoff of their jobs.'),
    failed: count('Refused for good.'),
    lastStatus: orNull(Type.Integer(), 'Of the last answer; null: there was none.'),
    lastError: orNull(Type.String(), 'What the last failure was.'),
    failuresInARow: count('Since the last success.'),
    failing: Type.Boolean({ description: 'So many that jobs are tried one at a time, with pauses.' }),
    retryInMs: count('Until something is sent again, ms.'),
  },
  { description: 'Of this process, since it began to send.' },
)

export const SubscriptionState = Type.Object(
  {
    queue: Type.String({ description: 'The queue.' }),
    url: Type.String({ description: 'Where its jobs are sent.' }),
    concurrency: Type.Integer({ description: 'Most deliveries at once.' }),
    timeoutMs: Type.Integer({ description: 'For a whole delivery, ms.' }),
    rateLimit: orNull(RateLimit, 'Most jobs in a time.'),
    headers: Type.Array(Type.String(), { description: 'Names of the headers that are sent.' }),
    secrets: Type.Array(
      Type.Object({
        id: Type.String({ description: 'The first 8 characters of its SHA-256.' }),
        createdAt: time('When it was made.'),
        expiresAt: orNull(
          Type.String({ format: 'date-time' }),
          'It signs until then; null: until it is replaced.',
        ),
      }),
      {
        description:
          'What deliveries are signed with, the newest first. The secrets themselves are not shown again.',
      },
    ),
    paused: orNull(
      Type.Object({
        reason: Type.String({ description: 'Why.' }),
        at: time('Since when.'),
      }),
      'Why nothing is sent, and since when. PUT it again to go on.',
    ),
    createdAt: time('When it was first put.'),
    updatedAt: time('When it was last changed.'),
    deliveries: orNull(Deliveries, 'null: nothing is sent from this process.'),
    secret: optional(Type.String({ description: 'The new secret: shown this once.' })),
  },
  { title: 'Subscription' },
)
