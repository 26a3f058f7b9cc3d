/** Schemas for reading jobs: the job resource, and the parameters of `GET /jobs…`. */
import { type Static, type TSchema, Type } from 'typebox'
import { jobStates } from '../../bullmq/job-states.ts'
import { QueueName } from '../../queues/schemas.ts'
import { malformedFields, omittedFields } from './job-resource.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
/** `type: [string, null]`: unlike a union, it does not make Fastify's serialiser try each branch. */
export const nullable = <T extends TSchema & { type?: string; enum?: unknown[] }>(
  schema: T,
  description: string,
) =>
  Type.Unsafe<Static<T> | null>({
    ...schema,
    ...(schema.enum ? { enum: [...schema.enum, null] } : {}),
    type: [schema.type ?? 'string', 'null'],
    description,
  })

export const State = Type.Enum([...jobStates], { description: 'State of the job, as in BullMQ.' })
export const Time = (description: string) => Type.String({ format: 'date-time', description })

export const Job = Type.Object(
  {
    id: Type.String({ description: 'Job id: `queue:key`.' }),
    queue: Type.String({ description: 'Queue of the job.' }),
    name: nullable(Type.String(), 'Name of the job, which tells workers what kind it is.'),
    state: State,
    progress: optional(
      Type.Unknown({ description: 'Progress as last reported by the worker; 0 before the first report.' }),
    ),
    priority: nullable(Type.Integer(), 'Priority, 1 is the highest; 0 means none.'),
    attemptsMade: nullable(Type.Integer(), 'Number of attempts that have ended.'),
    attempts: nullable(Type.Integer(), 'Maximum number of attempts.'),
    createdAt: nullable(Time(''), 'When the job was stored.'),
    delayedUntil: nullable(Time(''), 'When a delayed job is due; null unless delayed.'),
    startedAt: nullable(Time(''), 'When the last attempt began; null before the first.'),
    finishedAt: nullable(Time(''), 'When the job completed or failed; null before.'),
    result: optional(Type.Unknown({ description: 'Value that the worker returned; null before.' })),
    error: optional(
      nullable(
        Type.Object({ message: Type.String(), stacktrace: optional(Type.Array(Type.String())) }),
        'Why the last attempt failed; null if none has.',
      ),
    ),
    parent: optional(
      nullable(
        Type.String(),
        'Id of the parent job in a flow; null if none, or if it has another QUEUE_PREFIX.',
      ),
    ),
    deduplicationId: optional(nullable(Type.String(), 'Value of opts.deduplication.id; null if none.')),
    omitted: optional(
      Type.Array(Type.Enum([...omittedFields]), {
        description:
          'Fields that are left out, or null (`name`, `attempts`), because the response would exceed MAX_ANSWER_BYTES; of `logs`, only ' +
          'the oldest lines are. ' +
          'In a response with several jobs, get the job alone to see them.',
      }),
    ),
    malformed: optional(
      Type.Array(Type.Enum([...malformedFields]), {
        description:
          'Fields whose stored value is not what BullMQ writes. They are null; `data`, `result` and `progress` are the stored ' +
          'text, and `stacktrace` is empty.',
      }),
    ),
    data: optional(Type.Unknown({ description: 'Payload of the job, with include=data.' })),
    logs: optional(
      nullable(Type.Array(Type.String()), 'The newest thousand log lines, oldest first, with include=logs.'),
    ),
  },
  { title: 'Job' },
)

export const JobParams = Type.Object({
  id: Type.String({
    description: 'Job id: `queue:key`, or a key of the default queue.',
    examples: ['emails:welcome-42'],
  }),
})

const include = {
  include: optional(
    Type.Enum(['data', 'logs', 'data,logs', 'logs,data'], {
      description: 'Fields to add to the job.',
    }),
  ),
}

/** Longest wait, seconds. */
export const MAX_WAIT_S = 30

export const WaitQuery = {
  wait: optional(
    Type.Integer({
      minimum: 0,
      maximum: MAX_WAIT_S,
      description:
        'Seconds to wait for the condition in `until`. After that the response is the job as it is then.',
    }),
  ),
  until: optional(
    Type.Enum(['finished', 'change'], {
      description:
        'What to wait for: `finished` (the default), or any `change` since the ETag in If-None-Match, or since now if there is none.',
    }),
  ),
}

export const JobQuery = Type.Object({ ...include, ...WaitQuery }, strict)

/** Most jobs in one response. */
export const MAX_JOBS = 200

/** Default number of jobs in a page. */
export const PAGE = 50

/** Longest cursor that a request may carry. */
export const CURSOR_MAX_LENGTH = 8_192

export const JobsQuery = Type.Object(
  {
    ids: optional(
      Type.String({
        minLength: 1,
        maxLength: 16_384,
        description:
          'Up to 200 job ids, separated by commas. Only `id` and include=data may be combined with it. An id that is repeated is ' +
          'answered again without its long fields.',
        examples: ['emails:welcome-42,emails:welcome-43'],
      }),
    ),
    id: optional(
      Type.Array(Type.String(), {
        minItems: 1,
        maxItems: MAX_JOBS,
        description:
          'One job id, which may contain commas; repeat the parameter for more. They follow those of `ids`.',
      }),
    ),
    queue: optional(QueueName),
    state: optional(State),
    limit: optional(
      Type.Integer({
        minimum: 1,
        maximum: MAX_JOBS,
        description: `Most jobs in a page; the default is ${PAGE}.`,
      }),
    ),
    cursor: optional(
      Type.String({
        maxLength: CURSOR_MAX_LENGTH,
        description: 'Cursor of the previous page, for the same queue and state.',
      }),
    ),
    include: optional(Type.Enum(['data'], { description: 'With `ids` or `id`: adds the data of each job.' })),
  },
  strict,
)

export type JobsQuery = Static<typeof JobsQuery>

export const JobList = Type.Object(
  {
    jobs: Type.Array(Type.Union([Job, Type.Null({ description: 'The job does not exist.' })]), {
      description: 'The jobs in the order of `ids` and `id`, or those of the queue, newest first.',
    }),
    cursor: optional(
      nullable(
        Type.String(),
        'Cursor of the next page of a queue; null at the end. A page may be short before the end, for example because its jobs are large.',
      ),
    ),
  },
  { title: 'JobList' },
)

/** Documents the headers; they are read but not validated. */
export const JobHeaders = Type.Object({
  'if-none-match': optional(
    Type.String({ description: 'ETag of an earlier response; the response is 304 if nothing changed.' }),
  ),
  prefer: optional(
    Type.String({
      description: '`wait=N` (RFC 7240) works like the query parameter; more than 30 counts as 30.',
    }),
  ),
  'cache-control': optional(
    Type.String({ description: '`no-cache` bypasses the cache and reads from Redis.' }),
  ),
})
