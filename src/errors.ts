/**
 * Every error that a client can see: its code, status, whether a repeat can help, and what to do about it.
 *
 * The domain throws `new SluiceError('JOB_NOT_FOUND', …)`; `http/problem.ts` turns it into RFC 9457. Whatever is
 * thrown and is not one of these is a bug: it becomes a bare 500 and one line in the log.
 */

import { type Static, type TSchema, Type } from 'typebox'

/** Whether a write that failed may have happened all the same: the one thing a caller needs before it repeats. */
export type ExecutionOutcome = 'not_executed' | 'unknown'

/** One fault of the input. `pointer` is a JSON Pointer (RFC 6901) into the body, or the name of a parameter. */
export interface InvalidField {
  pointer: string
  detail: string
}

export interface ErrorDetails {
  /** What happened this time, in a sentence that says what to do. */
  detail?: string
  errors?: InvalidField[]
  outcome?: ExecutionOutcome
  /** Ids that the write used, so that a repeat with them cannot make a second job. */
  ids?: string[]
  retryAfterS?: number
  cause?: unknown
}

interface Row {
  status: number
  title: string
  /** True when the same request may succeed later without being changed. */
  retryable: boolean
  advice: string
}

const row = (status: number, title: string, advice: string, retryable = false): Row => ({
  status,
  title,
  retryable,
  advice,
})

export const errorTable = {
  // What the request is
  INVALID_JSON: row(400, 'The body is not valid JSON', 'Send one JSON value in UTF-8.'),
  EMPTY_BODY: row(400, 'The body is empty', 'Send a JSON object with Content-Type: application/json.'),
  JSON_TOO_DEEP: row(400, 'The JSON is nested too deeply', 'Nest at most 64 levels.'),
  FORBIDDEN_KEY: row(
    400,
    'The JSON holds a forbidden key',
    'Rename "__proto__" and "constructor.prototype".',
  ),
  INVALID_REQUEST: row(400, 'The request does not fit the schema', 'Mend what `errors` points at.'),
  BAD_HTTP: row(400, 'The request is not valid HTTP', 'Check the request line, the headers and the length.'),
  INVALID_NAME: row(422, 'A name or id may not be used', 'Choose another; `errors` says what is allowed.'),
  INVALID_OPTION: row(422, 'An option cannot hold', 'Mend what `errors` points at.'),
  IDEMPOTENCY_KEY_REUSED: row(
    422,
    'The idempotency key belongs to another payload',
    'Use a new key for a new job; repeat a job exactly as it was.',
  ),
  INVALID_ITEM: row(422, 'A job of the batch does not fit the schema', 'Mend what `errors` points at.'),
  ROUTE_NOT_FOUND: row(404, 'There is no such resource', 'See /openapi.json for what there is.'),
  METHOD_NOT_ALLOWED: row(405, 'The method is not allowed here', 'See `Allow`.'),
  REQUEST_TIMEOUT: row(408, 'The request took too long to arrive', 'Send it whole within 30 s.', true),
  PAYLOAD_TOO_LARGE: row(
    413,
    'The body is too large',
    'Send less at once, or raise BODY_LIMIT or BATCH_BODY_LIMIT.',
  ),
  UNSUPPORTED_MEDIA_TYPE: row(
    415,
    'The content type is not supported',
    'Send Content-Type: application/json.',
  ),
  HEADERS_TOO_LARGE: row(431, 'The headers are too large', 'Send at most 16 KiB of headers; the URL counts.'),

  // Who sent it
  UNAUTHORIZED: row(401, 'A valid API key is needed', 'Send Authorization: Bearer <key>.'),
  MISSING_SCOPE: row(403, 'The API key does not have the scope', 'Use a key that has it.'),
  RATE_LIMITED: row(429, 'The API key has sent too many requests', 'Repeat after `Retry-After`.', true),

  // What it asks for
  QUEUE_NOT_FOUND: row(404, 'There is no such queue', 'Check its name, and whether the API key is for it.'),
  LEASE_LOST: row(
    409,
    'The lease is not held any more',
    'Nothing was changed: another worker has the job, or will; or it was settled already. GET /jobs/{id} tells.',
  ),
  SUBSCRIPTION_NOT_FOUND: row(
    404,
    'The queue has no subscription',
    'Make one with PUT /queues/{queue}/subscription.',
  ),
  TOO_MANY_SUBSCRIPTIONS: row(409, 'There are too many subscriptions', 'Delete one that is not needed.'),
  WRONG_STATE: row(409, 'The job is not in a state for this', 'Look at it with GET /jobs/{id}.'),
  INVALID_LEASE: row(
    422,
    'This is not a lease of this service',
    'Send it as it was given; SECRET must be the same everywhere.',
  ),
  JOB_NOT_FOUND: row(404, 'There is no such job', 'Check the id. Retention may have removed a finished job.'),

  // Whether it can be had now
  OVERLOADED: row(503, 'Too much work is in flight', 'Repeat after `Retry-After`.', true),
  REDIS_UNAVAILABLE: row(
    503,
    'Redis cannot be reached',
    'Repeat after `Retry-After`; it recovers by itself.',
    true,
  ),
  REDIS_TIMEOUT: row(503, 'Redis did not answer in time', 'Repeat with the same ids: that is safe.', true),
  REDIS_LOADING: row(503, 'Redis is loading its data', 'Repeat after `Retry-After`.', true),
  REDIS_READONLY: row(503, 'Redis is a read-only replica', 'Repeat; a failover is likely under way.', true),
  REDIS_MISCONFIGURED: row(
    503,
    'Redis refuses writes',
    'Operator: Redis cannot persist (MISCONF); see its log.',
    true,
  ),
  REDIS_FULL: row(
    503,
    'Redis is out of memory',
    'Repeat when workers have drained, or raise maxmemory.',
    true,
  ),
  REDIS_LIMIT: row(503, "The Redis provider's limit is reached", 'Operator: see /health/redis.', true),
  NOT_REPLICATED: row(
    503,
    'Too few replicas have confirmed the job in time',
    'Repeat with the same ids: that is safe. Operator: see DURABILITY_REPLICAS.',
    true,
  ),
  REDIS_DENIED: row(
    503,
    'Redis denies access',
    'Operator: check the password and the ACL of REDIS_URL.',
    true,
  ),
  QUEUE_DAMAGED: row(
    503,
    'A key of this queue has the wrong type in Redis',
    'Operator: something other than BullMQ wrote it; see `detail`.',
  ),
  INTERNAL: row(500, 'Something broke here', 'Report it with the request id in `instance`.'),
} as const satisfies Record<string, Row>

export type ErrorCode = keyof typeof errorTable

export class SluiceError extends Error {
  readonly code: ErrorCode
  readonly details: ErrorDetails
  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(
      details.detail ?? errorTable[code].title,
      details.cause === undefined ? undefined : { cause: details.cause },
    )
    this.name = 'SluiceError'
    this.code = code
    this.details = details
  }
}

/** A {@link SluiceError} as it is; anything else as INTERNAL, with the error as its cause. */
export function asSluiceError(error: unknown): SluiceError {
  return error instanceof SluiceError ? error : new SluiceError('INTERNAL', { cause: error })
}

const optional = <T extends TSchema>(schema: T) => Type.Optional(schema)

/** The body of `application/problem+json` (RFC 9457). `instance` is added by the transport, which alone knows it. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: 'A page of this service that explains the code.' }),
    title: Type.String({ description: 'The kind of problem, the same for every occurrence.' }),
    status: Type.Integer({ description: 'The HTTP status.' }),
    detail: Type.String({ description: 'What happened this time, and what to do.' }),
    code: Type.String({ description: 'Stable name of the kind of problem, for programs.' }),
    retryable: Type.Boolean({ description: 'Whether the same request may succeed later.' }),
    instance: optional(Type.String({ description: 'This occurrence: the request id, as a URN.' })),
    errors: optional(
      Type.Array(
        Type.Object({
          pointer: Type.String({
            description: 'JSON Pointer into the body, or `?name` of a query parameter.',
          }),
          detail: Type.String({ description: 'What is wrong there.' }),
        }),
        { description: 'Each fault of the input.' },
      ),
    ),
    outcome: optional(
      Type.Enum(['not_executed', 'unknown'], {
        description: 'Whether the write may have happened: `unknown` says to repeat it with the same `ids`.',
      }),
    ),
    ids: optional(Type.Array(Type.String(), { description: 'Ids of the jobs that the write was about.' })),
  },
  { title: 'Problem' },
)
export type Problem = Static<typeof Problem>

/** What any route may answer, whatever it does. */
const EVERYWHERE: ErrorCode[] = ['INVALID_REQUEST', 'INTERNAL', 'UNAUTHORIZED']
/** What a route may answer that has a scope. */
export const GUARD_PROBLEMS: ErrorCode[] = ['MISSING_SCOPE', 'RATE_LIMITED', 'OVERLOADED']
/** What a route may answer that asks Redis. */
export const REDIS_PROBLEMS: ErrorCode[] = [
  'OVERLOADED',
  'REDIS_UNAVAILABLE',
  'REDIS_TIMEOUT',
  'REDIS_LOADING',
  'REDIS_READONLY',
  'REDIS_MISCONFIGURED',
  'REDIS_FULL',
  'REDIS_LIMIT',
  'REDIS_DENIED',
  'QUEUE_DAMAGED',
]
/** What a route may answer that reads a JSON body. */
export const BODY_PROBLEMS: ErrorCode[] = [
  'INVALID_JSON',
  'EMPTY_BODY',
  'JSON_TOO_DEEP',
  'FORBIDDEN_KEY',
  'REQUEST_TIMEOUT',
  'PAYLOAD_TOO_LARGE',
  'UNSUPPORTED_MEDIA_TYPE',
]

/** The `response` entries of a route's schema for the problems it can give, by status. */
export function problemResponses(codes: ErrorCode[]): Record<number, object> {
  const responses: Record<number, { description: string; content: object }> = {}
  for (const code of new Set([...EVERYWHERE, ...codes])) {
    const { status, title } = errorTable[code]
    const known = responses[status]
    const line = `\`${code}\`: ${title}.`
    responses[status] = {
      description: known ? `${known.description} ${line}` : line,
      content: { 'application/problem+json': { schema: Problem } },
    }
  }
  return responses
}

/** `/problems/job-not-found`: a page of this service that explains the code. */
export function problemType(code: ErrorCode): string {
  return `/problems/${code.toLowerCase().replaceAll('_', '-')}`
}

export function toProblem(error: SluiceError): Problem {
  const { status, title, retryable, advice } = errorTable[error.code]
  const { detail, errors, outcome, ids } = error.details
  return {
    type: problemType(error.code),
    title,
    status,
    detail: detail ?? `${title}. ${advice}`,
    code: error.code,
    retryable,
    ...(errors === undefined ? {} : { errors }),
    ...(outcome === undefined ? {} : { outcome }),
    ...(ids === undefined ? {} : { ids }),
  }
}
