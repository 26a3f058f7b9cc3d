/** Settings that bound what HTTP clients may use. */
import { integer } from './setting-types.ts'

export const httpSettings = {
  BODY_LIMIT: integer(
    'Largest request body, and largest item of a batch, bytes. With an idempotency key, a MiB of JSON that is all keys and numbers ' +
      'blocks the event loop for up to some hundreds of ms: lower this where clients are not trusted.',
    1_048_576,
    1_024,
    104_857_600,
  ),
  BATCH_BODY_LIMIT: integer(
    'Largest request body of POST /jobs/batch, /leases/settle and /leases/extend, bytes. Each of their items may have BODY_LIMIT.',
    5_242_880,
    1_024,
    104_857_600,
  ),
  BATCH_MAX_ITEMS: integer('Most jobs in one POST /jobs/batch.', 1_000, 1, 10_000),
  MAX_ANSWER_BYTES: integer(
    'Largest response body, and most bytes that one Redis command may read for it. Pages end early, and fields that do not fit ' +
      'are named in `omitted`.',
    8_388_608,
    65_536,
    268_435_456,
  ),
  READ_MAX_BYTES: integer(
    'Most bytes that large reads of jobs and events may hold at once; each takes MAX_ANSWER_BYTES, and the others wait.',
    33_554_432,
    65_536,
    17_179_869_184,
  ),
  READ_MAX_WAITING: integer('Most large reads that may wait; above it, 503 OVERLOADED.', 1_000, 0, 1_000_000),
  REQUEST_TIMEOUT: integer(
    'Time within which a request must have arrived completely, ms; then it is refused with 408.',
    30_000,
    1_000,
    600_000,
  ),
  MAX_EVENT_LOOP_DELAY: integer(
    'Mean delay of the event loop, ms, above which requests are refused at once with 503 OVERLOADED; 0: never.',
    500,
    0,
    60_000,
  ),
  MAX_CONNECTIONS: integer('Most client connections open at once; 0: no limit.', 10_000, 0, 1_000_000),
  WRITE_TIMEOUT: integer(
    'A client that takes no byte of its answer or event stream for this long is disconnected, ms. Idle connections are not ' +
      'affected.',
    30_000,
    1_000,
    600_000,
  ),
  MAX_BUFFERED_BYTES: integer(
    'Most bytes that wait to be sent to all clients together. Above it, clients that read nothing are disconnected, those with ' +
      'the most bytes first, and large answers are refused with 503 OVERLOADED.',
    134_217_728,
    1_048_576,
    8_589_934_592,
  ),
  MAX_PIPELINED_REQUESTS: integer(
    'Most requests that one connection may send before the first of them is answered (HTTP/1.1 pipelining); above it, ' +
      'the connection is served no more, and closed some seconds later.',
    100,
    1,
    10_000,
  ),
  MAX_WAITS_PER_CONNECTION: integer(
    'Most requests of one connection that wait at once (`wait`, event streams); above it, they are refused with 429 ' +
      'TOO_MANY_WAITS. More than one needs pipelining.',
    16,
    1,
    10_000,
  ),
  MAX_WAITS_PER_KEY: integer(
    'Most requests of one API key that wait at once; above it, they are refused with 429 TOO_MANY_WAITS.',
    10_000,
    1,
    1_000_000,
  ),
  MAX_WAITS: integer(
    'Most requests that wait at once; above it, they are refused with 503 OVERLOADED.',
    20_000,
    1,
    1_000_000,
  ),
  MAX_REFUSALS_PER_SECOND: integer(
    'Refused requests (400, 401, 403, 405, 413, 415, 421, 429, unknown paths) per second, of all clients, above which they are ' +
      'answered up to 5 s later; 0: no limit.',
    1_000,
    0,
    1_000_000,
  ),
  SSE_HEARTBEAT: integer(
    'Interval of the comments that keep an event stream open, ms.',
    15_000,
    1_000,
    600_000,
  ),
  SSE_MAX_BUFFERED: integer(
    'Most bytes buffered for a client that does not read its event stream; above it for one second, the client is disconnected.',
    262_144,
    16_384,
    67_108_864,
  ),
}
