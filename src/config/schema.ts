/**
 * Every setting: its variable, type, bounds, default and meaning. The key in the schema *is* the variable's name, so
 * `.env.example` and the README's table are made from here. How they are read: load.ts.
 */
import { type Static, type TSchema, Type } from 'typebox'

const text = (description: string, options: object = {}) => Type.String({ description, ...options })
const integer = (description: string, fallback: number, minimum: number, maximum: number) =>
  Type.Integer({ description, default: fallback, minimum, maximum })
const flag = (description: string, fallback = false) => Type.Boolean({ description, default: fallback })
const choice = <const T extends string[]>(description: string, fallback: T[number], values: T) =>
  Type.Enum(values, { description, default: fallback })
const list = <const T extends string[]>(...values: T) => values
const optional = <T extends TSchema>(schema: T) => Type.Optional(schema)

const DAY_MS = 86_400_000
const environments = list('development', 'production', 'test')
const levels = list('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent')

export const ConfigSchema = Type.Object({
  // The process
  NODE_ENV: choice(
    '`production` sizes the pool by REPLICAS and logs JSON only.',
    'development',
    environments,
  ),
  HOST: text('Address to listen on. Anything but loopback needs API keys, or ALLOW_ANONYMOUS=true.', {
    default: '127.0.0.1',
  }),
  PORT: integer('TCP port to listen on; 0 takes a free one.', 3000, 0, 65_535),
  API_KEYS_FILE: text(
    'The API keys, as `npm run key` writes them; read anew when it changes. While there is none, loopback is served without.',
    { default: 'data/keys.json' },
  ),
  ALLOW_ANONYMOUS: flag(
    'Serve beyond loopback while there are no API keys: whoever reaches the port may do everything.',
  ),
  SECRET: optional(
    Type.String({
      description:
        'Signs leases, and seals the secrets of webhooks; the same at every replica. To replace it: new,old for a while. Unset: ' +
        'made once and kept in DATA_DIR, without REDIS_URL.',
      minLength: 32,
    }),
  ),
  LOG_LEVEL: choice('Least severe line that is written.', 'info', levels),
  LOG_REQUESTS: choice(
    '`failed`: a line for each answer of 400 and above; `all`: for every answer.',
    'failed',
    ['none', 'failed', 'all'],
  ),
  SHUTDOWN_TIMEOUT: integer(
    'Longest shutdown, ms; then the process ends with code 1.',
    30_000,
    1_000,
    600_000,
  ),
  SHUTDOWN_DELAY: integer(
    'Time after SIGTERM, ms, in which `/health/ready` says 503 while all else is served.',
    0,
    0,
    120_000,
  ),
  BUILDING: flag('Build and OpenAPI time: nothing is connected, nothing is spawned.'),

  // HTTP limits
  BODY_LIMIT: integer(
    'Largest body, bytes. A mebibyte of nothing but keys holds the event loop for tens of ms: lower it where bodies are hostile.',
    1_048_576,
    1_024,
    104_857_600,
  ),
  BATCH_BODY_LIMIT: integer('Largest body of POST /jobs/batch, bytes.', 5_242_880, 1_024, 104_857_600),
  BATCH_MAX_ITEMS: integer('Most jobs in one POST /jobs/batch.', 1_000, 1, 10_000),
  REQUEST_TIMEOUT: integer('Time in which a request must have arrived whole, ms.', 30_000, 1_000, 600_000),
  MAX_EVENT_LOOP_DELAY: integer(
    'Mean lag of the event loop, ms, past which requests are refused at once (503 OVERLOADED); 0: never.',
    500,
    0,
    60_000,
  ),
  MAX_CONNECTIONS: integer('Most client sockets open at once; 0: no limit.', 10_000, 0, 1_000_000),

  SSE_HEARTBEAT: integer('How often an event stream carries a comment, ms.', 15_000, 1_000, 600_000),
  SSE_MAX_BUFFERED: integer(
    'Most that may wait here for a client that does not read its event stream, bytes; past it for a second, the client is dropped.',
    262_144,
    16_384,
    67_108_864,
  ),

  // Queues
  QUEUE_PREFIX: text("Prefix of every Redis key; BullMQ's own default, so that native workers meet it.", {
    default: 'bull',
    pattern: '^[^:{}\\s]+$|^\\{[^:{}\\s]+\\}$',
  }),
  DEFAULT_QUEUE: text('Queue of a job that names none, and of an id without a queue.', {
    default: 'default',
    pattern: '^[A-Za-z0-9_.-]{1,100}$',
  }),
  DEFAULT_KEEP_COMPLETED_AGE: integer(
    'How long a completed job stays readable, seconds, where the job says nothing (removeOnComplete.age); 0: as BullMQ, for ever.',
    86_400,
    0,
    31_536_000,
  ),
  DEFAULT_KEEP_FAILED_AGE: integer(
    'The same for a failed job (removeOnFail.age), seconds; 0: for ever.',
    604_800,
    0,
    31_536_000,
  ),

  // Enqueueing
  ENQUEUE_BATCH_MAX: integer('Most jobs in one Redis command; 1 turns batching off.', 200, 1, 1_000),
  ENQUEUE_BATCH_SOON: integer(
    'Jobs at which a batch leaves without waiting for the end of the tick.',
    16,
    1,
    1_000,
  ),
  ENQUEUE_BATCH_DELAY: integer('How long a batch is held open for more jobs, ms.', 0, 0, 1_000),
  ENQUEUE_BATCH_BYTES: integer('Bytes of job data at which a batch is full.', 1_048_576, 1_024, 104_857_600),
  ENQUEUE_BATCHES_IN_FLIGHT: integer('Batches of one queue on their way to Redis at once.', 4, 1, 64),
  ENQUEUE_MAX_WAITING: integer(
    'Most jobs held here before Redis has them; past it: 503 OVERLOADED.',
    10_000,
    1,
    1_000_000,
  ),
  IDEMPOTENCY_TTL: integer(
    'How long an Idempotency-Key leads to its job, ms; about 200 bytes of Redis a key.',
    DAY_MS,
    1_000,
    30 * DAY_MS,
  ),
  DURABILITY_REPLICAS: integer(
    'Replicas of Redis that must have a job before it is acknowledged (WAIT); 0: none is waited for.',
    0,
    0,
    16,
  ),
  DURABILITY_TIMEOUT: integer(
    'Longest wait for them, ms; then 503 NOT_REPLICATED, outcome unknown.',
    1_000,
    10,
    60_000,
  ),

  // Workers over HTTP
  MAX_STALLED_COUNT: integer(
    "How often a job's lease may run out before the job fails (BullMQ's maxStalledCount).",
    1,
    0,
    1_000,
  ),
  WEBHOOK_ALLOW_CIDRS: text(
    'Networks that webhooks may be sent to beside the public internet, such as 10.1.0.0/16, with commas between.',
    { default: '' },
  ),
  WEBHOOK_MAX_IN_FLIGHT: integer(
    'Deliveries on their way in this process at which no more jobs are taken.',
    1_000,
    1,
    100_000,
  ),
  WEBHOOK_MAX_RESPONSE: integer(
    "Largest answer of a receiver that is kept as its job's result, bytes; a larger one is cut off, its status counts.",
    262_144,
    0,
    16_777_216,
  ),
  WEBHOOK_PAUSE_AFTER: integer(
    'A subscription of which every delivery has failed for so long is paused, ms; 0: never.',
    DAY_MS,
    0,
    30 * DAY_MS,
  ),

  // The cache; all CACHE_TTL_* at 0 switch it off
  CACHE_MAX_BYTES: integer('Memory for cached answers, bytes.', 67_108_864, 65_536, 17_179_869_184),
  CACHE_TTL_SHORT: integer(
    'How long the status of an unfinished job may be served from memory, ms. What BullMQ announces ends it at once; ' +
      'this bounds what it does not (updateData, changePriority). 1 s at most while events are not heard.',
    60_000,
    0,
    DAY_MS,
  ),
  CACHE_TTL_LONG: integer(
    'The same for a finished job, ms: this bounds what retention removes.',
    1_800_000,
    0,
    DAY_MS,
  ),
  CACHE_TTL_MISSING: integer('How long "there is no such job" is remembered, ms.', 1_000, 0, DAY_MS),
  CACHE_SWEEP_INTERVAL: integer('How often expired answers are thrown out, ms.', 300_000, 1_000, DAY_MS),
  CACHE_STALE_KEEP: integer(
    'How long past its time an answer may still be served, marked stale, while Redis is away, ms.',
    300_000,
    0,
    DAY_MS,
  ),
  EVENTS_MAX_QUEUES: integer(
    'Most queues whose events are heard at once. Statuses of queues past it are kept for 1 s only.',
    1_000,
    1,
    10_000,
  ),
  HEALTH_TTL: integer('How long GET /health is served from memory, ms.', 60_000, 0, DAY_MS),

  // Redis
  REDIS_URL: optional(
    text(
      'redis://, rediss:// or unix:// address, `user:password@` before the host or the path if need be. Unset: a private ' +
        'redis-server is started on DATA_DIR.',
      { pattern: '^(redis|rediss|unix)://' },
    ),
  ),
  REDIS_TLS_CA: optional(
    text(
      "PEM file of the authority that signed the server's certificate, for rediss://. Unset: those that Node.js knows.",
    ),
  ),
  REDIS_TLS_CERT: optional(
    text('PEM file of the certificate that this service shows to the server, for rediss://.'),
  ),
  REDIS_TLS_KEY: optional(text('PEM file of the key of REDIS_TLS_CERT, not encrypted.')),
  DATA_DIR: text('Where the private redis-server keeps its data when REDIS_URL is unset.', {
    default: 'data',
  }),
  REDIS_PROVIDER_LIMIT: integer("The provider's limit on connections.", 1_024, 1, 1_000_000),
  REDIS_RESERVED_CONNECTIONS: integer(
    'Connections left to monitoring, administrators and scripts.',
    24,
    0,
    1_000_000,
  ),
  REDIS_POOL_ABSOLUTE_MAX: optional(
    Type.Integer({
      description: 'Most connections of all replicas together. Unset: the limit less the reserve.',
      minimum: 1,
      maximum: 1_000_000,
    }),
  ),
  REDIS_POOL_MAX_PER_WORKER: optional(
    Type.Integer({
      description:
        'Most connections of this process. Unset: the total divided by REPLICAS, or 50 in development.',
      minimum: 1,
      maximum: 1_000_000,
    }),
  ),
  REPLICAS: optional(
    Type.Integer({
      description: 'How many processes share the budget. Unset: the number of CPUs.',
      minimum: 1,
      maximum: 10_000,
    }),
  ),
  REDIS_POOL_SIZE: integer('Connections for commands; a queue always uses the same one.', 2, 1, 64),
  REDIS_MAX_CONCURRENT_OPS: integer('Round trips to Redis in flight at once: the semaphore.', 100, 1, 10_000),
  REDIS_MAX_WAITING: optional(
    Type.Integer({
      description: 'Round trips that may wait for the semaphore. Unset: 5000 in production, 200 otherwise.',
      minimum: 0,
      maximum: 1_000_000,
    }),
  ),
  REDIS_COMMAND_TIMEOUT: integer(
    'Longest wait for an answer of Redis, waiting for the semaphore included, ms.',
    5_000,
    50,
    600_000,
  ),
  REDIS_ADMIN_TIMEOUT: integer('The same for health, counts and other slow work, ms.', 10_000, 50, 600_000),
  REDIS_CONNECT_TIMEOUT: integer('Longest wait for a TCP connection to Redis, ms.', 10_000, 100, 600_000),
  REDIS_KEEP_ALIVE: integer('Idle time before TCP keep-alive probes, ms.', 5_000, 0, 600_000),
  REDIS_MEMORY_WATERMARK: integer(
    "Percentage of Redis' maxmemory from which on no more jobs are taken (503 REDIS_FULL), so that workers can drain it; 0: never refuse.",
    80,
    0,
    100,
  ),
  REDIS_MAX_RETRIES: integer('How often a command that never left is tried again; 0: never.', 3, 0, 10),
})

export type Config = Static<typeof ConfigSchema>

/** Names of the field reports for settings that have another name here. The name here wins when both are set. */
export const aliases: Record<string, keyof Config> = {
  REDIS_MAX_CONNECTIONS: 'REDIS_POOL_MAX_PER_WORKER',
  REDIS_WORKER_MAX_CONNECTIONS: 'REDIS_POOL_MAX_PER_WORKER',
  REDIS_WORKER_MAX_CONCURRENT_OPS: 'REDIS_MAX_CONCURRENT_OPS',
  REDIS_MAX_WAITING_CLIENTS: 'REDIS_MAX_WAITING',
}
