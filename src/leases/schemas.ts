/** The contract of working over HTTP: shapes, bounds and their meaning. */
import { type Static, Type } from 'typebox'
import { Problem } from '../errors.ts'
import { QUEUE_PATTERN } from '../queues/queue-registry.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
const integer = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description })

/** Most jobs that one request takes. */
const MAX_JOBS = 100
/** Most leases that one request gives back or extends. */
const MAX_ITEMS = 100
export const LEASE_MS = 30_000
const DAY_MS = 86_400_000

const Max = optional(
  integer(1, MAX_JOBS, 'Most jobs; 1 if missing. Fewer come when their data are large: 4 MiB and one job.'),
)
const Wait = optional(integer(0, 30, 'Seconds to wait for a job when there is none; 0 if missing.'))
const LeaseMs = optional(
  integer(
    1_000,
    DAY_MS,
    `For how long the jobs are held, ms; ${LEASE_MS} if missing. Extend it while you work.`,
  ),
)
const WorkerName = optional(
  Type.String({ minLength: 1, maxLength: 128, description: 'Who works it; BullMQ shows it as processedBy.' }),
)
const QueueName = Type.String({
  pattern: QUEUE_PATTERN,
  description: 'The queue: 1 to 100 of A-Z a-z 0-9 _ - .',
})
const LeaseText = Type.String({ minLength: 1, maxLength: 65_536, description: 'As it was given; opaque.' })

export const LeaseParams = Type.Object({ queue: QueueName })

export const TakeBody = Type.Object(
  { max: Max, wait: Wait, leaseMs: LeaseMs, worker: WorkerName },
  { ...strict, title: 'LeaseRequest' },
)
export type TakeBody = Static<typeof TakeBody>

export const LeasedJob = Type.Object(
  {
    id: Type.String({ description: '`queue:key`.' }),
    name: Type.String({ description: 'What kind of job it is.' }),
    data: Type.Unknown({ description: 'As it was enqueued.' }),
    attempt: Type.Integer({ description: 'Which attempt this is, from 1.' }),
    attempts: Type.Integer({ description: 'How many it has in all.' }),
    lease: Type.String({
      description: 'What it is settled and extended by: opaque, valid at every replica.',
    }),
    expiresAt: Type.String({ format: 'date-time', description: 'After this another worker may get it.' }),
    traceparent: optional(Type.String({ description: 'W3C Trace Context of whoever enqueued it.' })),
  },
  { title: 'LeasedJob' },
)

export const LeasedJobs = Type.Object(
  { jobs: Type.Array(LeasedJob, { description: 'In the order in which they are to be worked.' }) },
  { title: 'LeasedJobs' },
)

export const SettleItem = Type.Object(
  {
    lease: LeaseText,
    outcome: Type.Enum(['complete', 'fail', 'retry', 'release'], {
      description:
        "complete: it is done. fail: it counts as an attempt, and is tried again by the job's backoff while there are any left. " +
        'retry: it is tried again after `delay`, and this counts for no attempt. release: as if it had not been taken.',
    }),
    result: optional(Type.Unknown({ description: 'With complete: any JSON value.' })),
    error: optional(
      Type.Object(
        {
          message: Type.String({ maxLength: 65_536, description: 'Why it failed.' }),
          stack: optional(Type.String({ maxLength: 65_536, description: 'Where.' })),
        },
        { ...strict, description: 'With fail.' },
      ),
    ),
    unrecoverable: optional(
      Type.Boolean({ description: 'With fail: it is not tried again, however many attempts are left.' }),
    ),
    delay: optional(integer(0, 365 * DAY_MS, 'With retry: ms.')),
  },
  strict,
)
export type SettleItem = Static<typeof SettleItem>

export const SettleBody = Type.Object(
  {
    items: Type.Array(SettleItem, { minItems: 1, maxItems: MAX_ITEMS, description: 'Each stands alone.' }),
    next: optional(
      Type.Object(
        { queue: optional(QueueName), max: Max, wait: Wait, leaseMs: LeaseMs, worker: WorkerName },
        {
          ...strict,
          description:
            'More jobs, in the same round trip; of `queue`, or else of the first item whose lease can be read.',
        },
      ),
    ),
  },
  { ...strict, title: 'Settlement' },
)
export type SettleBody = Static<typeof SettleBody>

export const ExtendBody = Type.Object(
  {
    items: Type.Array(
      Type.Object(
        {
          lease: LeaseText,
          leaseMs: LeaseMs,
          progress: optional(Type.Unknown({ description: 'A number, or any JSON value.' })),
          log: optional(Type.String({ maxLength: 65_536, description: "A line for the job's log." })),
        },
        strict,
      ),
      { minItems: 1, maxItems: MAX_ITEMS, description: 'Each stands alone.' },
    ),
  },
  { ...strict, title: 'Extension' },
)
export type ExtendBody = Static<typeof ExtendBody>

const result = {
  index: Type.Integer({ description: 'Position in the request, from 0.' }),
  status: Type.Integer({ description: '200, or the status of `error`: 409 LEASE_LOST, 404, 422, 503.' }),
  id: optional(Type.String({ description: 'Of the job.' })),
  error: optional(Problem),
}

export const SettleResult = Type.Object(
  {
    results: Type.Array(Type.Object(result), { description: 'One for each item, in order.' }),
    jobs: Type.Array(LeasedJob, { description: 'What `next` has brought.' }),
  },
  { title: 'SettlementResult' },
)

export const ExtendResult = Type.Object(
  {
    results: Type.Array(
      Type.Object({
        ...result,
        expiresAt: optional(Type.String({ format: 'date-time', description: 'Until when it is held now.' })),
      }),
      { description: 'One for each item, in order.' },
    ),
  },
  { title: 'ExtensionResult' },
)
