/** The schemas of taking, settling and extending leases over HTTP. */
import { type Static, Type } from 'typebox'
import { Problem } from '../errors.ts'
import { QueueName } from '../queues/schemas.ts'
import { TEXT_MAX } from './truncate-text.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
const integer = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description })

/** Most jobs that one request takes. */
const JOBS_MAX = 100
/** Most leases that one request settles or extends. */
const ITEMS_MAX = 100
/** The default length of a lease. */
export const LEASE_MS = 30_000
const DAY_MS = 86_400_000

const Max = optional(
  integer(
    1,
    JOBS_MAX,
    'Most jobs to take; 1 by default. Fewer are taken where their data would exceed half of MAX_ANSWER_BYTES together.',
  ),
)
const Wait = optional(integer(0, 30, 'How long to wait for a job if there is none, seconds; 0 by default.'))
const LeaseMs = optional(
  integer(
    1_000,
    DAY_MS,
    `How long the jobs are leased, ms; ${LEASE_MS} by default. Extend the lease while you work.`,
  ),
)
const WorkerName = optional(
  Type.String({
    minLength: 1,
    maxLength: 128,
    description: 'Name of the worker; BullMQ stores it as processedBy.',
  }),
)
/** Longest token of a lease, in characters. */
export const LEASE_MAX = 65_536
const LeaseText = Type.String({
  minLength: 1,
  maxLength: LEASE_MAX,
  description: 'The opaque token that came with the job.',
})

const TRUNCATED = `Longer than ${TEXT_MAX} characters: its start is stored, and a mark that says so.`

const EXAMPLE_LEASE = 'the lease of a job that was taken'

export const TakeBody = Type.Object(
  { max: Max, wait: Wait, leaseMs: LeaseMs, worker: WorkerName },
  { ...strict, title: 'LeaseRequest', examples: [{ max: 1, leaseMs: LEASE_MS }] },
)
export type TakeBody = Static<typeof TakeBody>

const LeasedJobSchema = Type.Object(
  {
    id: Type.String({ description: 'Id of the job: `queue:key`.' }),
    name: Type.String({ description: 'Name of the job.' }),
    data: Type.Unknown({ description: 'The data of the job, as enqueued.' }),
    attempt: Type.Integer({ description: 'Number of this attempt, from 1.' }),
    attempts: Type.Integer({ description: 'Number of attempts that the job has in total.' }),
    lease: Type.String({
      description: 'Opaque token to settle or extend the job with. Every replica of this service accepts it.',
    }),
    expiresAt: Type.String({
      format: 'date-time',
      description: 'End of the lease. After it, another worker may get the job.',
    }),
    traceparent: optional(
      Type.String({ description: 'W3C Trace Context of the client that enqueued the job.' }),
    ),
  },
  { title: 'LeasedJob' },
)

export const LeasedJobs = Type.Object(
  { jobs: Type.Array(LeasedJobSchema, { description: 'The jobs, in the order in which to work them.' }) },
  { title: 'LeasedJobs' },
)

export const SettleItem = Type.Object(
  {
    lease: LeaseText,
    outcome: Type.Enum(['complete', 'fail', 'retry', 'release'], {
      description:
        'complete: the job is done. fail: the attempt failed; while attempts are left, the job is retried after its backoff, or ' +
        'after `delay`. ' +
        'retry: the job is retried after `delay` and loses no attempt. release: the job goes back to the queue and ' +
        'loses no attempt.',
    }),
    result: optional(
      Type.Unknown({
        description:
          'With complete: the result of the job, any JSON value; null by default. It is stored as it was sent, without the white ' +
          'space between its tokens.',
      }),
    ),
    error: optional(
      Type.Object(
        {
          message: Type.String({ description: 'Why the job failed.' }),
          stack: optional(Type.String({ description: 'Stack trace.' })),
        },
        { ...strict, description: `With fail: the error. ${TRUNCATED}` },
      ),
    ),
    unrecoverable: optional(
      Type.Boolean({ description: 'With fail: do not retry the job, even if attempts are left.' }),
    ),
    delay: optional(
      integer(
        0,
        365 * DAY_MS,
        'Delay before the next attempt, ms. With retry: 0 by default. With fail: replaces the backoff of the job.',
      ),
    ),
  },
  { ...strict, title: 'SettleItem' },
)
export type SettleItem = Static<typeof SettleItem>

export const SettleBody = Type.Object(
  {
    items: Type.Array(SettleItem, {
      minItems: 1,
      maxItems: ITEMS_MAX,
      description: 'The jobs to settle. Each item succeeds or fails alone.',
    }),
    next: optional(
      Type.Object(
        { queue: optional(QueueName), max: Max, wait: Wait, leaseMs: LeaseMs, worker: WorkerName },
        {
          ...strict,
          description:
            'Take more jobs in the same request: from `queue`, or from the queue of the first item whose lease can be read.',
        },
      ),
    ),
  },
  {
    ...strict,
    title: 'Settlement',
    examples: [{ items: [{ lease: EXAMPLE_LEASE, outcome: 'complete', result: { sent: true } }] }],
  },
)
export type SettleBody = Static<typeof SettleBody>

/** Validates the envelope only; the items are validated one by one. */
const Items = Type.Array(Type.Unknown(), { minItems: 1, maxItems: ITEMS_MAX })
export const SettleEnvelope = Type.Object({ items: Items, next: SettleBody.properties.next }, strict)
export const ExtendEnvelope = Type.Object({ items: Items }, strict)

export const ExtendItem = Type.Object(
  {
    lease: LeaseText,
    leaseMs: LeaseMs,
    progress: optional(
      Type.Unknown({
        description: 'New progress of the job: a number or any other JSON value, stored as it was sent.',
      }),
    ),
    log: optional(Type.String({ description: `Line to add to the job's log. ${TRUNCATED}` })),
  },
  { ...strict, title: 'ExtendItem' },
)
export type ExtendItem = Static<typeof ExtendItem>

export const ExtendBody = Type.Object(
  {
    items: Type.Array(ExtendItem, {
      minItems: 1,
      maxItems: ITEMS_MAX,
      description: 'The leases to extend. Each item succeeds or fails alone.',
    }),
  },
  {
    ...strict,
    title: 'Extension',
    examples: [{ items: [{ lease: EXAMPLE_LEASE, leaseMs: LEASE_MS, progress: 50 }] }],
  },
)

const result = {
  index: Type.Integer({ description: 'Position of the item in the request, from 0.' }),
  status: Type.Integer({
    description: '200, or the status of `error`: 400, 404, 409 LEASE_LOST, 413, 422, 503.',
  }),
  id: optional(
    Type.String({ description: 'Id of the job; absent if the item was refused before its lease was read.' }),
  ),
  error: optional(Problem),
}

export const SettleResponse = Type.Object(
  {
    results: Type.Array(Type.Object(result), { description: 'One for each item, in order.' }),
    jobs: Type.Array(LeasedJobSchema, { description: 'The jobs that `next` has taken.' }),
  },
  { title: 'SettlementResult' },
)

export const ExtendResponse = Type.Object(
  {
    results: Type.Array(
      Type.Object({
        ...result,
        expiresAt: optional(Type.String({ format: 'date-time', description: 'New end of the lease.' })),
      }),
      { description: 'One for each item, in order.' },
    ),
  },
  { title: 'ExtensionResult' },
)
