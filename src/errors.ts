/**
 * Every error that a client can see: code, status, whether repeating can help, and what to do. The domain throws it as a
 * SluiceError; `http/problem.ts` sends it as a problem (RFC 9457). Any other error is a bug: a 500 without details.
 */
import { type Static, Type } from 'typebox'

/** Whether a failed write may have been executed. A caller needs to know before it repeats the write. */
export type ExecutionOutcome = 'not_executed' | 'unknown'

/** One invalid field of the input. */
export interface InvalidField {
  /** A JSON Pointer (RFC 6901) into the body, or `?name` of a query parameter. */
  pointer: string
  detail: string
}

export interface ErrorDetails {
  /** What went wrong this time, then what to do. Without it, the table's title and advice are sent. */
  detail?: string
  errors?: InvalidField[]
  outcome?: ExecutionOutcome
  /** Ids of the jobs that the write tried to store. Repeating it with these ids cannot create a second job. */
  ids?: string[]
  /** The `Retry-After` header, s. Without it, `http/problem.ts` chooses one for each 429 and 503. */
  retryAfterS?: number
  cause?: unknown
}

interface Row {
  status: number
  /** What was wrong, as a sentence without its full stop. */
  title: string
  /** What to do, in whole sentences. Starts with "Operator:" where a client can do nothing. */
  advice: string
  /** True when the same request may succeed later without being changed. */
  retryable: boolean
}

const row = (status: number, title: string, advice: string, retryable = false): Row => ({
  status,
  title,
  advice,
  retryable,
})

const FIX_FIELDS = 'Fix the fields listed in `errors`.'
/** Advice on a temporary problem, in the table and in the details of errors. */
export const REPEAT_LATER = 'Repeat the request after `Retry-After` seconds.'

export const errorTable = {
  // The request
  INVALID_JSON: row(400, 'The body is not valid JSON', 'Send one JSON value in UTF-8.'),
  EMPTY_BODY: row(400, 'The body is empty', 'Send a JSON object with `Content-Type: application/json`.'),
  JSON_TOO_DEEP: row(400, 'The JSON is nested too deeply', 'Nest at most 64 levels.'),
  FORBIDDEN_KEY: row(400, 'The JSON has a forbidden key', 'Rename `__proto__` or `constructor.prototype`.'),
  INVALID_REQUEST: row(400, 'The request does not match the schema', FIX_FIELDS),
  BAD_HTTP: row(400, 'The request is not valid HTTP', 'Check line and headers. Write % in a URL as %25.'),
  INVALID_NAME: row(422, 'A name or id is not allowed', 'Choose another; `errors` says what is allowed.'),
  INVALID_OPTION: row(422, 'An option is not allowed', FIX_FIELDS),
  IDEMPOTENCY_KEY_REUSED: row(
    422,
    'The idempotency key was used with a different payload',
    'Use a new key for a new job. To repeat a job, send it unchanged.',
  ),
  INVALID_ITEM: row(422, 'An item does not match the schema', FIX_FIELDS),
  ROUTE_NOT_FOUND: row(404, 'The resource does not exist', 'See /openapi.json. Percent-encode names.'),
  METHOD_NOT_ALLOWED: row(405, 'The path does not support this method', 'Use a method listed in `Allow`.'),
  REQUEST_TIMEOUT: row(
    408,
    'The request took too long to arrive',
    'Send the headers within 5 s and the whole request within REQUEST_TIMEOUT (30 s unless configured).',
    true,
  ),
  PAYLOAD_TOO_LARGE: row(
    413,
    'The body is too large',
    'Send a smaller body. Operator: BODY_LIMIT and BATCH_BODY_LIMIT set the limits.',
  ),
  UNSUPPORTED_MEDIA_TYPE: row(
    415,
    'The content type is not supported',
    'Send `Content-Type: application/json`.',
  ),
  MISDIRECTED_REQUEST: row(421, 'The Host is not served', 'Operator: name it in ALLOWED_HOSTS, or use keys.'),
  HEADERS_TOO_LARGE: row(
    431,
    'The headers are too large',
    'Send at most 16 KiB of headers, including the URL.',
  ),

  // The caller
  UNAUTHORIZED: row(401, 'A valid API key is required', 'Send `Authorization: Bearer <key>`.'),
  MISSING_SCOPE: row(403, 'The API key lacks the required scope', 'Use a key that has the scope.'),
  RATE_LIMITED: row(429, 'The API key exceeded its rate limit', REPEAT_LATER, true),
  TOO_MANY_WAITS: row(429, 'Too many requests wait at once', REPEAT_LATER, true),

  // The resource
  QUEUE_NOT_FOUND: row(404, 'The queue does not exist', 'Check its name, and the queues of the API key.'),
  LEASE_LOST: row(
    409,
    'The lease is no longer held',
    'Stop working on the job; nothing was changed. GET /jobs/{id} shows whether it is settled or open again.',
  ),
  SUBSCRIPTION_NOT_FOUND: row(
    404,
    'The queue has no subscription',
    'Create one with PUT /queues/{queue}/subscription.',
  ),
  SUBSCRIPTION_MALFORMED: row(409, 'The stored subscription is malformed', 'PUT it again, or DELETE it.'),
  TOO_MANY_SUBSCRIPTIONS: row(409, 'The limit of subscriptions is reached', 'Delete one that is not needed.'),
  WRONG_STATE: row(409, 'The state of the job does not allow this', 'Check it with GET /jobs/{id}.'),
  INVALID_LEASE: row(
    422,
    'The lease token is not valid',
    'Send the token unchanged. Operator: SECRET must be the same on every replica of this service.',
  ),
  JOB_NOT_FOUND: row(
    404,
    'The job does not exist',
    'Check the id, and that it is percent-encoded in a path. Retention may have removed a finished job.',
  ),

  // The service and Redis
  OVERLOADED: row(503, 'The service has too much work in flight', REPEAT_LATER, true),
  REDIS_UNAVAILABLE: row(
    503,
    'Redis is unreachable',
    `${REPEAT_LATER} The service reconnects by itself.`,
    true,
  ),
  REDIS_TIMEOUT: row(
    503,
    'Redis did not respond in time',
    'Repeat the request. A repeat with the same `ids` cannot create a second job.',
    true,
  ),
  REDIS_LOADING: row(503, 'Redis is loading its data', REPEAT_LATER, true),
  REDIS_READONLY: row(
    503,
    'Redis is a read-only replica',
    `${REPEAT_LATER} A failover is probably in progress.`,
    true,
  ),
  REDIS_MISCONFIGURED: row(
    503,
    'Redis rejects writes',
    'Operator: Redis cannot persist data (MISCONF) or lacks replicas (NOREPLICAS). Check its log.',
    true,
  ),
  REDIS_FULL: row(
    503,
    'Redis is out of memory',
    'Repeat the request once workers have drained the queues. Operator: raise maxmemory.',
    true,
  ),
  REDIS_LIMIT: row(
    503,
    'A limit of Redis or its provider is reached',
    'Operator: see GET /health/redis.',
    true,
  ),
  NOT_REPLICATED: row(
    503,
    'Too few Redis replicas confirmed the job in time',
    'Repeat it with the same `ids`, which cannot create a second job. Operator: see DURABILITY_REPLICAS.',
    true,
  ),
  REDIS_DENIED: row(503, 'Redis denied access', 'Operator: check the password and ACL of REDIS_URL.', true),
  QUEUE_DAMAGED: row(
    503,
    'A Redis key of this queue has the wrong type',
    'Operator: find and repair the key, which something other than BullMQ wrote.',
  ),
  INTERNAL: row(500, 'An unexpected error occurred', 'Report it with the request id in `instance`.'),
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

/** Returns a {@link SluiceError} unchanged; wraps anything else as INTERNAL, with the error as its cause. */
export function asSluiceError(error: unknown): SluiceError {
  return error instanceof SluiceError ? error : new SluiceError('INTERNAL', { cause: error })
}

const optional = Type.Optional

/** The body of `application/problem+json` (RFC 9457). `http/problem.ts` adds `instance`. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: 'Path of a page of this service that explains the code.' }),
    title: Type.String({ description: 'What was wrong, the same for every occurrence of the code.' }),
    status: Type.Integer({ description: 'The HTTP status.' }),
    detail: Type.String({ description: 'What was wrong this time, and what to do.' }),
    code: Type.String({ description: 'Stable name of the problem, for programs.' }),
    retryable: Type.Boolean({ description: 'Whether the same request may succeed later, unchanged.' }),
    instance: optional(Type.String({ description: 'The request id, as a URN: `urn:request:<id>`.' })),
    errors: optional(
      Type.Array(
        Type.Object({
          pointer: Type.String({
            description: 'JSON Pointer into the body, or `?name` of a query parameter.',
          }),
          detail: Type.String({ description: 'What is wrong with this field.' }),
        }),
        { description: 'The invalid fields.' },
      ),
    ),
    outcome: optional(
      Type.Enum(['not_executed', 'unknown'], {
        description:
          'Whether the write was executed. `unknown`: it may have been; repeat it with the same `ids`.',
      }),
    ),
    ids: optional(
      Type.Array(Type.String(), { description: 'Ids of the jobs that the write tried to store.' }),
    ),
  },
  { title: 'Problem' },
)
export type Problem = Static<typeof Problem>

/** Problems of every route. */
const EVERYWHERE: ErrorCode[] = ['INVALID_REQUEST', 'INTERNAL', 'UNAUTHORIZED', 'MISDIRECTED_REQUEST']
/** Problems of every route with a scope. */
export const GUARD_PROBLEMS: ErrorCode[] = ['MISSING_SCOPE', 'RATE_LIMITED', 'OVERLOADED']
/** Problems of every route that uses Redis. */
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
/** Problems of every route that reads a JSON body. */
export const BODY_PROBLEMS: ErrorCode[] = [
  'INVALID_JSON',
  'EMPTY_BODY',
  'JSON_TOO_DEEP',
  'FORBIDDEN_KEY',
  'REQUEST_TIMEOUT',
  'PAYLOAD_TOO_LARGE',
  'UNSUPPORTED_MEDIA_TYPE',
]

/** The `response` entries of a route's schema for its problems, by status. */
export function problemResponses(codes: ErrorCode[]): Record<number, object> {
  const responses: Record<number, { description: string; content: object }> = {}
  for (const code of new Set([...EVERYWHERE, ...codes])) {
    const { status, title } = errorTable[code]
    const previous = responses[status]
    const line = `\`${code}\`: ${title}.`
    responses[status] = {
      description: previous ? `${previous.description} ${line}` : line,
      content: { 'application/problem+json': { schema: Problem } },
    }
  }
  return responses
}

/** The path of the page that explains a code, for example `/problems/job-not-found`. */
export function problemType(code: ErrorCode): string {
  return `/problems/${code.toLowerCase().replaceAll('_', '-')}`
}

/** The problem as clients see it: without the cause, and without what belongs in a header. */
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
