/** Settings of the process: its address, access, log and shutdown. */
import { choice, flag, integer, optional, text } from './setting-types.ts'

export const processSettings = {
  NODE_ENV: choice(
    'In `production` the connection budget is divided by REPLICAS, more operations may wait for Redis, and SECRET is required ' +
      'with REDIS_URL.',
    'development',
    ['development', 'production', 'test'],
  ),
  HOST: text('Address to listen on. Any address but loopback requires API keys, or ALLOW_ANONYMOUS=true.', {
    default: '127.0.0.1',
  }),
  PORT: integer('TCP port to listen on; 0 selects a free one.', 3000, 0, 65_535),
  API_KEYS_FILE: text(
    'File of the API keys, written by `npm run key` and reloaded when it changes. While it holds no key, no request needs one ' +
      'and the service listens on loopback only, unless ALLOW_ANONYMOUS=true. If it is set and the file is missing, the service does ' +
      'not start with ALLOW_ANONYMOUS=true.',
    { default: 'data/keys.json' },
  ),
  ALLOW_ANONYMOUS: flag(
    'Listen on addresses other than loopback without API keys: every client that reaches the port may do everything.',
  ),
  ALLOWED_HOSTS: text(
    'Host names, separated by commas, that are served while there are no API keys, besides localhost and loopback addresses; ' +
      '`*.example.com` names all below it, and `*` every host. Requests for other hosts get 421, since a web page could send them ' +
      '(DNS rebinding). With ALLOW_ANONYMOUS=true, IP addresses and names without a dot are served too. Not used with API keys.',
    { default: '' },
  ),
  SECRET: optional(
    text(
      'Signs leases and encrypts the secrets of webhooks; at least 32 characters, the same on every replica. To replace it, set ' +
        'new,old until no lease of the old one is left. Unset: generated once and kept in DATA_DIR; not allowed in production with REDIS_URL.',
      { minLength: 32 },
    ),
  ),
  FEATURES_DISABLED: text(
    'Features to leave out, separated by commas: events (server-sent events), leases (HTTP workers), webhooks. Their routes ' +
      'respond with 404 and are not in the OpenAPI document; they use no timer and no Redis command.',
    { default: '' },
  ),
  LOG_LEVEL: choice('Least severe level that is logged.', 'info', [
    'fatal',
    'error',
    'warn',
    'info',
    'debug',
    'trace',
    'silent',
  ]),
  LOG_REQUESTS: choice(
    '`failed`: one log line for each response with status 400 or above; `all`: one for every response.',
    'failed',
    ['none', 'failed', 'all'],
  ),
  SHUTDOWN_TIMEOUT: integer(
    'Longest shutdown after SHUTDOWN_DELAY, ms; then the process exits with code 1.',
    30_000,
    1_000,
    600_000,
  ),
  SHUTDOWN_DELAY: integer(
    'Time after SIGTERM, ms, during which `/health/ready` responds with 503 and every other request is served as before, so that ' +
      'load balancers take the replica out.',
    0,
    0,
    120_000,
  ),
  BUILDING: flag(
    'For builds and `npm run openapi`: the service connects to no Redis and starts no private redis-server.',
  ),
}
