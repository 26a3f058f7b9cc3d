/** Request and response schemas of webhook subscriptions. */
import { type Static, type TSchema, Type } from 'typebox'
import { DEFAULT_CONCURRENCY, DEFAULT_OVERLAP_S, DEFAULT_TIMEOUT_MS } from './subscription.ts'

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
    max: integer(1, 1_000_000, 'How many jobs may start within `duration`.'),
    duration: integer(1, 86_400_000, 'Length of the window, ms.'),
  },
  {
    ...strict,
    description: "BullMQ's worker rate limit. A global rate limit of the queue takes precedence.",
  },
)

/** RFC 9110 §5.1 and §5.5, without quotes and control characters. */
export const HEADER_NAME = '^[A-Za-z0-9!#$%&*+.^_|~-]{1,100}$'
const HEADER_VALUE = '^[\\x20-\\x7e]{0,2000}$'

export const SubscriptionBody = Type.Object(
  {
    url: Type.String({
      minLength: 1,
      maxLength: 2_048,
      description:
        'The endpoint that each job is POSTed to: http or https, on the public internet or within ' +
        'WEBHOOK_ALLOW_CIDRS.',
    }),
    concurrency: optional(
      integer(
        1,
        1_000,
        `Most deliveries in flight, in all replicas together; default ${DEFAULT_CONCURRENCY}.`,
      ),
    ),
    timeoutMs: optional(
      integer(
        100,
        300_000,
        `Deadline of a delivery up to the last byte of the response, ms; default ${DEFAULT_TIMEOUT_MS}.`,
      ),
    ),
    secret: optional(
      Type.String({
        maxLength: 200,
        description:
          'Signing secret: `whsec_` and the base64 of 24 to 64 bytes. If omitted, the first PUT generates one and ' +
          'later ones keep it. A different secret replaces the current one, which keeps signing beside it for a ' +
          'day.',
      }),
    ),
    rateLimit: optional(RateLimit),
    headers: optional(
      Type.Record(Type.String({ pattern: HEADER_NAME }), Type.String({ pattern: HEADER_VALUE }), {
        maxProperties: 20,
        description:
          'Headers to send with each delivery, such as Authorization; 8 KiB at most in all. Their values are never returned.',
      }),
    ),
    paused: optional(Type.Boolean({ description: 'Deliver nothing until the next PUT; default false.' })),
  },
  {
    ...strict,
    title: 'SubscriptionRequest',
    examples: [{ url: 'https://example.com/jobs', concurrency: 5, timeoutMs: 10_000 }],
  },
)
export type SubscriptionBody = Static<typeof SubscriptionBody>

export const RotateBody = Type.Object(
  {
    overlap: optional(
      integer(
        0,
        2_592_000,
        `How long earlier secrets keep signing, s; default ${DEFAULT_OVERLAP_S} (one day).`,
      ),
    ),
  },
  { ...strict, title: 'SecretRotation', examples: [{ overlap: 3_600 }] },
)

const Deliveries = Type.Object(
  {
    inFlight: count('Deliveries in flight.'),
    delivered: count('Deliveries with a 2xx response.'),
    retried: count('Failed attempts that are subject to the backoff of the job.'),
    postponed: count(
      'Deliveries that could not start and used no attempt, such as while DNS did not respond.',
    ),
    failed: count('Deliveries that failed permanently.'),
    lastStatus: orNull(
      Type.Integer(),
      'Status of the response to the latest delivery; null if there was none.',
    ),
    lastError: orNull(Type.String(), 'Reason of the latest failure.'),
    failuresInARow: count('Failures since the last success.'),
    failing: Type.Boolean({
      description:
        'Whether the endpoint has failed so often that jobs are delivered one at a time, with pauses.',
    }),
    retryInMs: count('Time until the next delivery may start, ms.'),
  },
  {
    description:
      'Statistics of this process since it began to deliver for the current version of the subscription.',
  },
)

export const SubscriptionState = Type.Object(
  {
    queue: Type.String({ description: 'Queue name.' }),
    url: Type.String({ description: 'Endpoint that the jobs are delivered to.' }),
    concurrency: Type.Integer({ description: 'Most deliveries in flight, in all replicas together.' }),
    timeoutMs: Type.Integer({ description: 'Deadline of a delivery, ms.' }),
    rateLimit: orNull(RateLimit, 'Worker rate limit; null if unlimited.'),
    headers: Type.Array(Type.String(), { description: 'Names of the additional headers.' }),
    secrets: Type.Array(
      Type.Object({
        id: Type.String({ description: 'The first 8 hex digits of its SHA-256.' }),
        createdAt: time('When the secret was created.'),
        expiresAt: orNull(
          Type.String({ format: 'date-time' }),
          'When it stops signing; null while it is the current secret.',
        ),
      }),
      {
        description:
          'The secrets that sign deliveries, newest first. The secrets themselves are never returned again.',
      },
    ),
    paused: orNull(
      Type.Object({
        reason: Type.String({ description: 'Why deliveries are paused.' }),
        at: time('Since when deliveries are paused.'),
      }),
      'Present while deliveries are paused. PUT the subscription again to resume.',
    ),
    problem: orNull(
      Type.String(),
      'Why nothing is delivered, or deliveries fail: the end of a sentence that begins with "The subscription".',
    ),
    createdAt: time('When the subscription was created.'),
    updatedAt: time('When the subscription was last changed.'),
    deliveries: orNull(
      Deliveries,
      'Delivery statistics; null when this process delivers nothing for the queue.',
    ),
    secret: optional(
      Type.String({ description: 'A generated signing secret, shown only in this response.' }),
    ),
  },
  { title: 'Subscription' },
)
