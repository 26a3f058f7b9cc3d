/** Schemas of the enqueue routes, from which the OpenAPI document is generated. */
import { type Static, Type } from 'typebox'
import { Problem } from '../../errors.ts'
import { type BodyShape, itemsOf, membersOf, rawValue } from '../../json/body-shape.ts'
import { QUEUE_PATTERN } from '../../queues/queue-name.ts'
import { JOB_KEY_PATTERN } from '../job-id.ts'
import { Job, nullable, State, Time, WaitQuery } from '../status/schemas.ts'
import { IDEMPOTENCY_KEY_PATTERN } from './idempotency.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
const integer = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description })

/**
 * Ten years. The score of a delayed job keeps 41 bits for the due time, which end in September 2039.
 */
const MAX_DELAY_MS = 10 * 365 * 86_400_000
const MAX_SAFE = Number.MAX_SAFE_INTEGER

const Retention = (outcome: 'completed' | 'failed') =>
  Type.Union(
    [
      Type.Boolean(),
      integer(0, MAX_SAFE, `Number of ${outcome} jobs to keep.`),
      Type.Object(
        {
          age: optional(integer(0, MAX_SAFE, 'How long to keep the job, in seconds.')),
          count: optional(integer(0, MAX_SAFE, `Number of ${outcome} jobs to keep.`)),
          limit: optional(integer(1, MAX_SAFE, 'Most jobs to remove in one pass.')),
        },
        strict,
      ),
    ],
    {
      description:
        `Retention of the ${outcome} job: true removes it at once, false keeps it, and a number or {age, count, limit} bound what is kept. ` +
        `BullMQ applies the bounds of a job that has ${outcome} to all ${outcome} jobs of the queue: a short age also removes jobs that ` +
        'asked for a longer one.',
    },
  )

export const JobOptions = Type.Object(
  {
    jobId: optional(
      Type.String({
        pattern: JOB_KEY_PATTERN,
        description:
          'Key of the job: 1 to 128 characters of A-Z a-z 0-9 _ - . ~, not starting with . or ~, not digits alone, and ' +
          "none of the names of BullMQ's own keys (completed, wait, meta, …).",
      }),
    ),
    delay: optional(integer(0, MAX_DELAY_MS, 'Time until the job may be processed, in ms.')),
    priority: optional(
      integer(
        0,
        2_097_151,
        '1 is the highest. 0: no priority; such jobs are processed before those with one.',
      ),
    ),
    lifo: optional(Type.Boolean({ description: 'Add the job to the front of the queue.' })),
    attempts: optional(integer(1, 1_000_000, 'Attempts in total, including the first.')),
    backoff: optional(
      Type.Union(
        [
          integer(0, MAX_DELAY_MS, 'Fixed delay, in ms.'),
          Type.Object(
            {
              type: Type.Enum(['fixed', 'exponential'], {
                description: 'exponential: delay × 2^(attempt − 1).',
              }),
              delay: optional(integer(0, MAX_DELAY_MS, 'The delay, in ms.')),
              jitter: optional(
                Type.Number({ minimum: 0, maximum: 1, description: 'Fraction of the delay that is random.' }),
              ),
            },
            strict,
          ),
        ],
        {
          description:
            'Delay before the next attempt: milliseconds, or {type: fixed|exponential, delay, jitter}.',
        },
      ),
    ),
    removeOnComplete: optional(Retention('completed')),
    removeOnFail: optional(Retention('failed')),
    deduplication: optional(
      Type.Object(
        {
          id: Type.String({
            minLength: 1,
            maxLength: 255,
            description: 'Jobs with the same id are duplicates.',
          }),
          ttl: optional(
            integer(
              1,
              MAX_DELAY_MS,
              'How long the id is reserved, in ms. Without it, until the job has finished.',
            ),
          ),
          extend: optional(Type.Boolean({ description: 'Each duplicate restarts the ttl.' })),
          replace: optional(Type.Boolean({ description: 'A duplicate replaces a delayed job.' })),
          reschedule: optional(Type.Boolean({ description: 'A duplicate sets the delay of a delayed job.' })),
          keepLastIfActive: optional(
            Type.Boolean({
              description: 'While the job is active, the latest duplicate is kept and runs after it.',
            }),
          ),
        },
        strict,
      ),
    ),
    keepLogs: optional(integer(0, MAX_SAFE, 'Number of log lines to keep.')),
    stackTraceLimit: optional(integer(0, MAX_SAFE, 'Number of stack traces to keep.')),
    sizeLimit: optional(
      integer(1, MAX_SAFE, 'Largest size of the data, in bytes of JSON. A larger job is refused.'),
    ),
  },
  { ...strict, title: 'JobOptions', description: "BullMQ's job options." },
)

/** Without an example, the documentation page invents a value for every field, and the service refuses them together. */
const EXAMPLE = { queue: 'emails', name: 'welcome', data: { to: 'ann@example.com' }, opts: { attempts: 3 } }

const JobQueue = Type.String({
  pattern: QUEUE_PATTERN,
  description:
    'Queue name: 1 to 100 characters of A-Z a-z 0-9 _ . -, or the name of an existing queue, which is any that BullMQ accepts: ' +
    '1 to 512 characters without a colon.',
})

export const NewJobBody = Type.Object(
  {
    queue: optional(JobQueue),
    name: Type.String({
      minLength: 1,
      maxLength: 512,
      description: 'Name of the job: what kind of work it is.',
    }),
    data: optional(
      Type.Unknown({
        description:
          'Payload: any JSON value. Stored as the text that was sent, without white space between tokens: numbers of any ' +
          'size, the order of members and escapes stay as they are. Default {}.',
      }),
    ),
    opts: optional(JobOptions),
  },
  { ...strict, title: 'NewJob', examples: [EXAMPLE] },
)
export type NewJobBody = Static<typeof NewJobBody>

const newJobMembers = { queue: undefined, name: undefined, data: rawValue, opts: undefined }

/** The data of a job stay text: `data` of a NewJobBody is a RawJson. */
export const newJobShape: BodyShape = membersOf(newJobMembers)

/** One item of a batch. */
export const BatchItem = Type.Object(
  {
    ...NewJobBody.properties,
    idempotencyKey: optional(
      Type.String({
        pattern: IDEMPOTENCY_KEY_PATTERN,
        description:
          'Idempotency key of this job, as the Idempotency-Key header of POST /jobs: 1 to 255 visible ASCII characters.',
      }),
    ),
  },
  { ...strict, title: 'NewBatchJob' },
)
export type BatchItem = Static<typeof BatchItem>

/** For the OpenAPI document: `parseIdempotencyKey` validates the header. */
export const AddHeaders = Type.Object({
  'idempotency-key': optional(
    Type.String({
      pattern: IDEMPOTENCY_KEY_PATTERN,
      description:
        'Repeating a request with its key, from the same API key and within IDEMPOTENCY_TTL (24 h), returns the first job with ' +
        '200 and `Idempotency-Replayed: true`. The key with another payload returns 422 IDEMPOTENCY_KEY_REUSED.',
    }),
  ),
})

export const BatchHeaders = Type.Object({
  'idempotency-key': optional(
    Type.String({
      pattern: IDEMPOTENCY_KEY_PATTERN,
      description: 'For each job without an idempotencyKey: this key, combined with the index of the job.',
    }),
  ),
})

export const StoredJob = Type.Object(
  {
    id: Type.String({ description: '`queue:key`, as in GET /jobs/{id}.' }),
    queue: Type.String({ description: 'Name of the queue.' }),
    name: nullable(Type.String(), 'Name of the job; null when the existing job has been removed.'),
    state: nullable(
      State,
      'State of the job when it was stored, or of the existing job; null when that has been removed.',
    ),
    createdAt: nullable(Time(''), 'When the job was stored; null when the existing job has been removed.'),
    deduplicated: Type.Boolean({
      description: 'True: nothing was stored, because the job with this `id` existed already.',
    }),
    // After a wait the response is the whole job.
    ...Type.Partial(Type.Omit(Job, ['id', 'queue', 'name', 'state', 'createdAt', 'data', 'logs'])).properties,
  },
  {
    title: 'StoredJob',
    description:
      'The first six fields. After a `wait`, the other fields of Job as well, as of the end of the wait.',
  },
)

export const AddQuery = Type.Object(WaitQuery, strict)

export const BatchBody = Type.Object(
  {
    jobs: Type.Array(BatchItem, {
      minItems: 1,
      description: 'Up to BATCH_MAX_ITEMS (1000) jobs, of any queues; each of at most BODY_LIMIT bytes.',
    }),
  },
  { ...strict, title: 'NewJobBatch', examples: [{ jobs: [EXAMPLE] }] },
)

const batchItemShape = membersOf({ ...newJobMembers, idempotencyKey: undefined })

/** `maxItemBytes`: a larger item is refused alone, as one that is too deep or has a forbidden key. */
export const batchShape = (maxItemBytes: number): BodyShape =>
  membersOf({ jobs: itemsOf(batchItemShape, maxItemBytes) })

/** Validates the envelope only; the items are independent and validated one by one. */
export const batchEnvelope = (maxItems: number) =>
  Type.Object({ jobs: Type.Array(Type.Unknown(), { minItems: 1, maxItems }) }, strict)

export const BatchResult = Type.Object(
  {
    created: Type.Integer({ description: 'Number of jobs that were stored.' }),
    deduplicated: Type.Integer({ description: 'Number of jobs that existed already.' }),
    failed: Type.Integer({ description: 'Number of jobs that were refused or failed.' }),
    results: Type.Array(
      Type.Object({
        index: Type.Integer({ description: 'Position in the request, from 0.' }),
        status: Type.Integer({
          description: '201: stored. 200: existed already. Otherwise the status of `error`.',
        }),
        id: optional(Type.String({ description: '`queue:key` of the job.' })),
        state: optional(nullable(State, 'As in StoredJob.')),
        deduplicated: optional(Type.Boolean({ description: 'As in StoredJob.' })),
        error: optional(Problem),
      }),
      { description: 'One result for each job, in the order of the request.' },
    ),
  },
  { title: 'BatchResult' },
)
export type BatchResult = Static<typeof BatchResult>
