/** Settings of queues, of enqueueing, and of workers over HTTP. */
import { DAY_MS, flag, integer, text } from './setting-types.ts'

export const queueSettings = {
  QUEUE_PREFIX: text(
    "Prefix of every Redis key: any that BullMQ accepts, such as app:prod or {bull}. The default is BullMQ's own, so that " +
      'native workers and producers share the queues.',
    { default: 'bull' },
  ),
  DEFAULT_QUEUE: text(
    'Queue of a job that names none, and of a job id without a queue. A name that is not 1 to 100 characters of ' +
      'A-Z a-z 0-9 _ . - has to be that of an existing queue.',
    { default: 'default', pattern: '^[^:]{1,512}$' },
  ),
  DEFAULT_KEEP_COMPLETED_AGE: integer(
    'How long a completed job is kept, seconds, unless it sets removeOnComplete; 0: forever, as in BullMQ.',
    86_400,
    0,
    31_536_000,
  ),
  DEFAULT_KEEP_FAILED_AGE: integer(
    'How long a failed job is kept, seconds, unless it sets removeOnFail; 0: forever, as in BullMQ.',
    604_800,
    0,
    31_536_000,
  ),
  KNOWN_QUEUES_MAX: integer(
    'Most names in the list of queues. Above it those unused for the longest are removed from the list, never their jobs.',
    100_000,
    100,
    10_000_000,
  ),
  KNOWN_QUEUES_IDLE: integer(
    'How long after its last use an empty queue stays in the list of queues, ms.',
    DAY_MS,
    60_000,
    365 * DAY_MS,
  ),
}

export const enqueueSettings = {
  ENQUEUE_BATCH_MAX: integer('Most jobs in one Redis command; 1 turns batching off.', 200, 1, 1_000),
  ENQUEUE_BATCH_SOON: integer(
    'Number of jobs at which a batch is sent without waiting for the end of the event loop tick.',
    16,
    1,
    1_000,
  ),
  ENQUEUE_BATCH_DELAY: integer(
    'How long a batch stays open for more jobs, ms; 0: until the end of the event loop tick.',
    0,
    0,
    1_000,
  ),
  ENQUEUE_BATCH_BYTES: integer(
    'Job data in one batch at which it is sent, bytes.',
    1_048_576,
    1_024,
    104_857_600,
  ),
  ENQUEUE_BATCHES_IN_FLIGHT: integer('Most batches of one queue in flight to Redis at once.', 4, 1, 64),
  ENQUEUE_MAX_WAITING: integer(
    'Most jobs held in memory until Redis has stored them; above it, 503 OVERLOADED.',
    10_000,
    1,
    1_000_000,
  ),
  IDEMPOTENCY_TTL: integer(
    'How long an Idempotency-Key is remembered, ms; each takes about 200 bytes of Redis memory.',
    DAY_MS,
    1_000,
    30 * DAY_MS,
  ),
  DURABILITY_REPLICAS: integer(
    'Number of Redis replicas that must have a job before it is acknowledged (WAIT); 0: none.',
    0,
    0,
    16,
  ),
  DURABILITY_TIMEOUT: integer(
    'Longest wait for those replicas, ms; then 503 NOT_REPLICATED, and the job may have been stored.',
    1_000,
    10,
    60_000,
  ),
}

export const workerSettings = {
  MAX_STALLED_COUNT: integer(
    "How often a job's lease may expire before the job fails (BullMQ's maxStalledCount).",
    1,
    0,
    1_000,
  ),
  WEBHOOK_ALLOW_CIDRS: text(
    'Networks, besides the public internet, to which webhooks may be delivered: CIDR blocks separated by commas, such as 10.1.0.0/16.',
    { default: '' },
  ),
  WEBHOOK_MAX_IN_FLIGHT: integer(
    'Most deliveries in flight in this process; while this limit is reached, only an API key without a delivery in flight starts one.',
    1_000,
    1,
    100_000,
  ),
  WEBHOOK_MAX_RESPONSE: integer(
    "Longest body of an endpoint's response that is kept as the job's result, bytes. Of a longer one only the status counts.",
    262_144,
    0,
    16_777_216,
  ),
  WEBHOOK_MAX_SUBSCRIPTIONS: integer(
    'Most subscriptions; a new one above it is refused with TOO_MANY_SUBSCRIPTIONS, and more in Redis are not delivered. ' +
      'Each follows the events of its queue (EVENTS_MAX_QUEUES).',
    1_000,
    1,
    100_000,
  ),
  WEBHOOK_OPEN_OLD_SEALS: flag(
    'For the upgrade from 0.1.0: open the secrets and header values that it sealed, and seal them again, bound to their queue ' +
      'and URL. Start once with it, then remove it: while it is set, who can write to Redis can have old seals sent elsewhere.',
  ),
  WEBHOOK_PAUSE_AFTER: integer(
    'A subscription whose deliveries have all failed for this long is paused, ms; 0: never.',
    DAY_MS,
    0,
    30 * DAY_MS,
  ),
}
