/** The contract of enqueueing: shapes, bounds and their meaning. The OpenAPI document is made from here. */
import { type Static, Type } from 'typebox'
import { Problem } from '../../errors.ts'
import { JOB_KEY_PATTERN } from '../job-id.ts'
import { Job, nullable, QueueName, State, Time, WaitQuery } from '../status/schemas.ts'
import { IDEMPOTENCY_KEY_PATTERN } from './idempotency.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
const integer = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description })

/** BullMQ keeps 12 bits beside the due time in the score of a delayed job, so the time has 41: until 2039 and a bit. */
const MAX_DELAY_MS = 10 * 365 * 86_400_000
const MAX_SAFE = Number.MAX_SAFE_INTEGER

const Keep = (whose: string) =>
  Type.Union(
    [
      Type.Boolean(),
      integer(0, MAX_SAFE, 'How many to keep.'),
      Type.Object(
        {
          age: optional(integer(0, MAX_SAFE, 'How long to keep it, seconds.')),
          count: optional(integer(0, MAX_SAFE, 'How many to keep.')),
          limit: optional(integer(1, MAX_SAFE, 'How many to remove at most in one pass.')),
        },
        strict,
      ),
    ],
    {
      description: `What happens to the ${whose} job: true removes it at once; a number, or age and count, keep it.`,
    },
  )

export const JobOptions = Type.Object(
  {
    jobId: optional(
      Type.String({
        pattern: JOB_KEY_PATTERN,
        description:
          "The job's own key: 1 to 128 of A-Z a-z 0-9 _ - . ~, not starting with . or ~, not digits alone, " +
          'not a word that BullMQ uses for keys of its own (completed, wait, meta, …).',
      }),
    ),
    delay: optional(integer(0, MAX_DELAY_MS, 'How long the job waits before it may be worked, ms.')),
    priority: optional(integer(0, 2_097_151, '1 is the highest; 0 is none, and goes before all priorities.')),
    lifo: optional(Type.Boolean({ description: 'Put it first in line instead of last.' })),
    attempts: optional(integer(1, 1_000_000, 'How often it is tried in all.')),
    backoff: optional(
      Type.Union(
        [
          integer(0, MAX_DELAY_MS, 'A fixed wait, ms.'),
          Type.Object(
            {
              type: Type.Enum(['fixed', 'exponential'], {
                description: 'exponential: delay × 2^(attempt − 1).',
              }),
              delay: optional(integer(0, MAX_DELAY_MS, 'The wait, ms.')),
              jitter: optional(
                Type.Number({ minimum: 0, maximum: 1, description: 'Share of the wait that is random.' }),
              ),
            },
            strict,
          ),
        ],
        {
          description:
            'The wait before the next attempt: milliseconds, or {type: fixed|exponential, delay, jitter}.',
        },
      ),
    ),
    removeOnComplete: optional(Keep('completed')),
    removeOnFail: optional(Keep('failed')),
    deduplication: optional(
      Type.Object(
        {
          id: Type.String({
            minLength: 1,
            maxLength: 255,
            description: 'Jobs with the same id count as one.',
          }),
          ttl: optional(integer(1, MAX_DELAY_MS, 'For how long, ms; without it until the job has finished.')),
          extend: optional(Type.Boolean({ description: 'Each further job starts the ttl anew.' })),
          replace: optional(
            Type.Boolean({ description: 'The new job takes the place of one that is delayed.' }),
          ),
          reschedule: optional(
            Type.Boolean({ description: 'The delayed job gets the delay of the new one.' }),
          ),
          keepLastIfActive: optional(
            Type.Boolean({
              description: 'While one is active, the last of the others is kept and runs after it.',
            }),
          ),
        },
        strict,
      ),
    ),
    keepLogs: optional(integer(0, MAX_SAFE, 'How many log lines to keep.')),
    stackTraceLimit: optional(integer(0, MAX_SAFE, 'How many stack traces to keep.')),
    sizeLimit: optional(integer(1, MAX_SAFE, 'Refuse the job if its data are larger, bytes.')),
  },
  { ...strict, title: 'JobOptions', description: "BullMQ's job options." },
)

export const NewJobBody = Type.Object(
  {
    queue: optional(QueueName),
    name: Type.String({ minLength: 1, maxLength: 512, description: 'What kind of job it is.' }),
    data: optional(Type.Unknown({ description: 'Any JSON value; {} if missing.' })),
    opts: optional(JobOptions),
  },
  { ...strict, title: 'NewJob' },
)
export type NewJobBody = Static<typeof NewJobBody>

/** A job of a batch. */
export const BatchItem = Type.Object(
  {
    ...NewJobBody.properties,
    idempotencyKey: optional(
      Type.String({
        pattern: IDEMPOTENCY_KEY_PATTERN,
        description:
          'As the header Idempotency-Key of POST /jobs, for this one: 1 to 255 visible characters of ASCII.',
      }),
    ),
  },
  { ...strict, title: 'NewBatchJob' },
)
export type BatchItem = Static<typeof BatchItem>

/** For the documentation: headers are read where they are used. */
export const AddHeaders = Type.Object({
  'idempotency-key': optional(
    Type.String({
      pattern: IDEMPOTENCY_KEY_PATTERN,
      description:
        'The same key again, from the same API key within IDEMPOTENCY_TTL (24 h), leads to the same job: 200, and ' +
        '`Idempotency-Replayed: true`. With another payload: 422 IDEMPOTENCY_KEY_REUSED.',
    }),
  ),
})

export const BatchHeaders = Type.Object({
  'idempotency-key': optional(
    Type.String({
      pattern: IDEMPOTENCY_KEY_PATTERN,
      description: 'For each job of the batch without an idempotencyKey: this and its index in the batch.',
    }),
  ),
})

export const StoredJob = Type.Object(
  {
    id: Type.String({ description: '`queue:key`; GET /jobs/{id} follows it.' }),
    queue: Type.String({ description: 'Its queue.' }),
    name: nullable(Type.String(), 'Its name; null when the job it duplicates is gone already.'),
    state: nullable(
      State,
      'Its state when it was stored, or that of the job it duplicates; null when that is gone.',
    ),
    createdAt: nullable(Time(''), 'When the job that exists was stored; null when that is gone.'),
    deduplicated: Type.Boolean({
      description: 'True: nothing was stored, the id is that of the job that was there.',
    }),
    // After a wait it is the whole job.
    ...Type.Partial(Type.Omit(Job, ['id', 'queue', 'name', 'state', 'createdAt', 'data', 'logs'])).properties,
  },
  {
    title: 'StoredJob',
    description: 'Beyond the first six fields it has those of Job, as it stands then, after a `wait` only.',
  },
)

export const AddQuery = Type.Object(WaitQuery, strict)

export const BatchBody = Type.Object(
  {
    jobs: Type.Array(BatchItem, {
      minItems: 1,
      description: 'The jobs, BATCH_MAX_ITEMS (1000) at most. Queues may be mixed.',
    }),
  },
  { ...strict, title: 'NewJobBatch' },
)

/** What is checked before the items are: each of them stands alone and is checked by itself. */
export const batchEnvelope = (maxItems: number) =>
  Type.Object({ jobs: Type.Array(Type.Unknown(), { minItems: 1, maxItems }) }, strict)

export const BatchResult = Type.Object(
  {
    created: Type.Integer({ description: 'How many were stored.' }),
    deduplicated: Type.Integer({ description: 'How many were there already.' }),
    failed: Type.Integer({ description: 'How many were refused or failed.' }),
    results: Type.Array(
      Type.Object({
        index: Type.Integer({ description: 'Position in the request, from 0.' }),
        status: Type.Integer({ description: '201 stored, 200 there already, else the status of `error`.' }),
        id: optional(Type.String({ description: '`queue:key` of the job that exists.' })),
        state: optional(nullable(State, 'As in StoredJob.')),
        deduplicated: optional(Type.Boolean({ description: 'As in StoredJob.' })),
        error: optional(Problem),
      }),
      { description: 'One for each job, in the order of the request.' },
    ),
  },
  { title: 'BatchResult' },
)
export type BatchResult = Static<typeof BatchResult>
