/** Settings for Redis: its address, how many connections and commands may be open, and how long they may take. */
import { integer, optional, text, unsetInteger } from './setting-types.ts'

export const redisSettings = {
  REDIS_URL: optional(
    text(
      'Address of Redis: redis://, rediss:// (TLS) or unix://, with `user:password@` before the host or the path where needed. ' +
        'Unset: a private redis-server is started with its data in DATA_DIR.',
      { pattern: '^(redis|rediss|unix)://' },
    ),
  ),
  REDIS_TLS_CA: optional(
    text(
      "PEM file of the authority that signed the server's certificate, for rediss://. Unset: the authorities that Node.js trusts.",
    ),
  ),
  REDIS_TLS_CERT: optional(
    text('PEM file of the certificate that this service presents to the server, for rediss://.'),
  ),
  REDIS_TLS_KEY: optional(text('PEM file of the private key of REDIS_TLS_CERT, not encrypted.')),
  DATA_DIR: text(
    'Folder in which the private redis-server keeps its data, and this service its generated SECRET, while REDIS_URL or SECRET is unset.',
    { default: 'data' },
  ),
  REDIS_PROVIDER_LIMIT: integer(
    "The provider's limit on connections, from which the connection budget is computed.",
    1_024,
    1,
    1_000_000,
  ),
  REDIS_RESERVED_CONNECTIONS: integer(
    'Connections of that limit left to monitoring, administrators and scripts.',
    24,
    0,
    1_000_000,
  ),
  REDIS_POOL_ABSOLUTE_MAX: unsetInteger(
    'Most connections of all replicas of this service together. Unset: REDIS_PROVIDER_LIMIT less REDIS_RESERVED_CONNECTIONS.',
    1,
    1_000_000,
  ),
  REDIS_POOL_MAX_PER_WORKER: unsetInteger(
    'Most connections of this process. Unset: the total divided by REPLICAS, and outside production 50 at most.',
    1,
    1_000_000,
  ),
  REPLICAS: unsetInteger(
    'Number of replicas of this service that share the connection budget. Unset: the number of CPUs.',
    1,
    10_000,
  ),
  REDIS_POOL_SIZE: integer(
    'Connections of this process for commands; the commands of a queue always use the same one.',
    2,
    1,
    64,
  ),
  REDIS_MAX_CONCURRENT_OPS: integer('Most round trips to Redis in flight at once.', 100, 1, 10_000),
  REDIS_MAX_WAITING: unsetInteger(
    'Most operations that may wait for such a round trip; above it, 503 OVERLOADED. Unset: 5000 in production, 200 otherwise.',
    0,
    1_000_000,
  ),
  REDIS_COMMAND_TIMEOUT: integer(
    'Longest wait for a response of Redis, ms, including the wait for a round trip.',
    5_000,
    50,
    600_000,
  ),
  REDIS_ADMIN_TIMEOUT: integer(
    'Longest wait for a response of Redis to health, counts and other slow commands, ms.',
    10_000,
    50,
    600_000,
  ),
  REDIS_CONNECT_TIMEOUT: integer('Longest wait for a connection to Redis, ms.', 10_000, 100, 600_000),
  REDIS_KEEP_ALIVE: integer('Idle time before TCP keep-alive probes, ms.', 5_000, 0, 600_000),
  REDIS_MEMORY_WATERMARK: integer(
    "Percentage of Redis' maxmemory above which new jobs are refused with 503 REDIS_FULL, so that workers can still drain the queues; " +
      '0: never.',
    80,
    0,
    100,
  ),
  REDIS_MAX_RETRIES: integer(
    'How often a command that was never sent is retried, within the first 80 ms; 0: never.',
    3,
    0,
    10,
  ),
}
