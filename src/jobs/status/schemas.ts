/** The contract of following jobs: what is told of a job, and how it is asked for. */
import { type Static, type TSchema, Type } from 'typebox'
import { jobStates } from '../../bullmq/job-states.ts'
import { QUEUE_PATTERN } from '../../queues/queue-registry.ts'

const optional = Type.Optional
const strict = { additionalProperties: false }
/** `type: [string, null]`: unlike a union, Fastify's serialiser need not try its branches. */
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

export const QueueName = Type.String({
  pattern: QUEUE_PATTERN,
  description: 'Queue name: 1 to 100 of A-Z a-z 0-9 _ . -',
})

export const State = Type.Enum([...jobStates], { description: "BullMQ's state of the job." })
export const Time = (description: string) => Type.String({ format: 'date-time', description })

export const Job = Type.Object(
  {
    id: Type.String({ description: '`queue:key`.' }),
    queue: Type.String({ description: 'Its queue.' }),
    name: Type.String({ description: 'What kind of job it is.' }),
    state: State,
    progress: Type.Unknown({ description: 'What its worker last said; 0 before.' }),
    priority: Type.Integer({ description: '0: none.' }),
    attemptsMade: Type.Integer({ description: 'Attempts that have ended.' }),
    attempts: Type.Integer({ description: 'Attempts there are in all.' }),
    createdAt: Time('When it was stored.'),
    delayedUntil: nullable(Time(''), 'When it is due, while it is delayed.'),
    startedAt: nullable(Time(''), 'When the last attempt began.'),
    finishedAt: nullable(Time(''), 'When it completed or failed.'),
    result: Type.Unknown({ description: 'What its worker returned; null before.' }),
    error: nullable(
      Type.Object({ message: Type.String(), stacktrace: Type.Array(Type.String()) }),
      'Why the last attempt failed.',
    ),
    parent: nullable(Type.String(), 'Id of the parent in a flow.'),
    deduplicationId: nullable(Type.String(), 'Its opts.deduplication.id.'),
    data: optional(Type.Unknown({ description: 'With include=data.' })),
    logs: optional(
      Type.Array(Type.String(), { description: 'With include=logs: the newest thousand lines.' }),
    ),
  },
  { title: 'Job' },
)

export const JobParams = Type.Object({
  id: Type.String({
    description: '`queue:key`; a key alone is of the default queue.',
    examples: ['emails:welcome-42'],
  }),
})

const include = {
  include: optional(
    Type.Enum(['data', 'logs', 'data,logs', 'logs,data'], {
      description: 'What is added to the job.',
    }),
  ),
}

/** Most seconds that a request is held. */
export const MAX_WAIT_S = 30

export const WaitQuery = {
  wait: optional(
    Type.Integer({
      minimum: 0,
      maximum: MAX_WAIT_S,
      description: 'Answer only when the job is as `until` says, or after so many seconds as it stands then.',
    }),
  ),
  until: optional(
    Type.Enum(['finished', 'change'], {
      description:
        'With wait: `finished` (the default), or any `change` from the ETag in If-None-Match; without that, from how it is now.',
    }),
  ),
}

export const JobQuery = Type.Object({ ...include, ...WaitQuery }, strict)

/** Most jobs that one request asks for. */
export const MAX_JOBS = 200

/** Jobs in a page, where the client does not say. */
export const PAGE = 50

export const JobsQuery = Type.Object(
  {
    ids: optional(
      Type.String({
        minLength: 1,
        maxLength: 16_384,
        description: 'Ids with commas between, 200 at most. Nothing else goes with it but include=data.',
        examples: ['emails:welcome-42,emails:welcome-43'],
      }),
    ),
    queue: optional(QueueName),
    state: optional(State),
    limit: optional(
      Type.Integer({
        minimum: 1,
        maximum: MAX_JOBS,
        description: `Most jobs in a page; ${PAGE} if missing.`,
      }),
    ),
    cursor: optional(
      Type.String({ maxLength: 8_192, description: 'Of the page before, with the same queue and state.' }),
    ),
    include: optional(Type.Enum(['data'], { description: 'With ids: adds the data of each.' })),
  },
  strict,
)

export type JobsQuery = Static<typeof JobsQuery>

export const JobList = Type.Object(
  {
    jobs: Type.Array(Type.Union([Job, Type.Null({ description: 'There is no such job.' })]), {
      description: 'In the order of `ids`; of a queue the newest first.',
    }),
    cursor: optional(
      nullable(
        Type.String(),
        'Of a queue: where the next page begins; null when there is none. Only this tells the end: a page may be short.',
      ),
    ),
  },
  { title: 'JobList' },
)

/** For the documentation: headers are read, not validated. */
export const JobHeaders = Type.Object({
  'if-none-match': optional(
    Type.String({ description: 'ETag of the answer at hand; 304 if it still holds.' }),
  ),
  prefer: optional(
    Type.String({ description: '`wait=N` (RFC 7240): as the query parameter; more than 30 counts as 30.' }),
  ),
  'cache-control': optional(Type.String({ description: '`no-cache` asks Redis, whatever is in memory.' })),
})
