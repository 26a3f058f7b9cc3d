/** The texts are those of redis-server 7.0, ioredis 6.0 and Upstash. */
import t from 'tap'
import { type ErrorCode, type ExecutionOutcome, SluiceError } from '../../src/errors.ts'
import { classifyRedisError, fromRedisError, isLimitError } from '../../src/redis/redis-errors.ts'

const RETRIED = true
const texts: [string, ErrorCode, ExecutionOutcome, boolean?][] = [
  // ioredis
  [
    "Stream isn't writeable and enableOfflineQueue options is false",
    'REDIS_UNAVAILABLE',
    'not_executed',
    RETRIED,
  ],
  ['connect ECONNREFUSED 127.0.0.1:6379', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['connect ENOENT /tmp/redis.sock', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['getaddrinfo ENOTFOUND redis', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['getaddrinfo EAI_AGAIN redis', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['Connection is closed.', 'REDIS_UNAVAILABLE', 'unknown'],
  [
    'Reached the max retries per request limit (which is 0). Refer to "maxRetriesPerRequest" option for details.',
    'REDIS_UNAVAILABLE',
    'unknown',
  ],
  ['Command aborted due to connection close', 'REDIS_UNAVAILABLE', 'unknown'],
  ['write EPIPE', 'REDIS_UNAVAILABLE', 'unknown'],
  ['read ECONNRESET', 'REDIS_UNAVAILABLE', 'unknown'],
  ['connect ETIMEDOUT', 'REDIS_UNAVAILABLE', 'unknown'],
  // Redis
  ['LOADING Redis is loading the dataset in memory', 'REDIS_LOADING', 'not_executed', RETRIED],
  [
    "READONLY You can't write against a read only replica. script: 5a1f, on @user_script:1.",
    'REDIS_READONLY',
    'not_executed',
    RETRIED,
  ],
  [
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    'REDIS_READONLY',
    'not_executed',
    RETRIED,
  ],
  ["OOM command not allowed when used memory > 'maxmemory'. script: 5a1f", 'REDIS_FULL', 'not_executed'],
  ["ERR OOM command not allowed when used memory > 'maxmemory'.", 'REDIS_FULL', 'not_executed'],
  ['MISCONF Redis is configured to save RDB snapshots, but …', 'REDIS_MISCONFIGURED', 'not_executed'],
  ['NOREPLICAS Not enough good replicas to write.', 'REDIS_MISCONFIGURED', 'not_executed'],
  ['NOAUTH Authentication required.', 'REDIS_DENIED', 'not_executed'],
  ['WRONGPASS invalid username-password pair or user is disabled.', 'REDIS_DENIED', 'not_executed'],
  ["NOPERM this user has no permissions to run the 'evalsha' command", 'REDIS_DENIED', 'not_executed'],
  ['BUSY Redis is busy running a script.', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['CLUSTERDOWN The cluster is down', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['TRYAGAIN Multiple keys request during rehashing of slot', 'REDIS_UNAVAILABLE', 'not_executed', RETRIED],
  ['ERR max number of clients reached', 'REDIS_LIMIT', 'not_executed'],
  // Upstash
  ['ERR max requests limit exceeded', 'REDIS_LIMIT', 'not_executed'],
  ['ERR max daily request limit exceeded. Limit: 10000, Usage: 10001', 'REDIS_LIMIT', 'not_executed'],
  ['ERR max concurrent connections exceeded', 'REDIS_LIMIT', 'not_executed'],
  ['ERR max request size exceeded', 'REDIS_LIMIT', 'not_executed'],
  ['ERR max key size exceeded', 'REDIS_LIMIT', 'not_executed'],
  ['ERR max single record size exceeded', 'REDIS_LIMIT', 'not_executed'],
  ['ERR DB capacity quota exceeded', 'REDIS_FULL', 'not_executed'],
  // The ACL, within a script
  [
    "ERR The user executing the script can't run this command or subcommand script: 5a1f, on @user_script:1.",
    'REDIS_DENIED',
    'unknown',
  ],
  [
    "ERR ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
    'REDIS_DENIED',
    'unknown',
  ],
  // Neither temporary nor fixable by an operator: a bug of the service, with the cautious outcome.
  ['NOSCRIPT No matching script. Please use EVAL.', 'INTERNAL', 'unknown'],
  ['EXECABORT Transaction discarded because of previous errors.', 'INTERNAL', 'unknown'],
  ['Command timed out', 'INTERNAL', 'unknown'],
  ['ERR syntax error', 'INTERNAL', 'unknown'],
  ['BUSYGROUP Consumer Group name already exists', 'INTERNAL', 'unknown'],
  ['', 'INTERNAL', 'unknown'],
]

t.test('every known text has its code and outcome, and is retried only if it is temporary', async (t) => {
  for (const [text, code, outcome, worthRetrying = false] of texts) {
    t.match(classifyRedisError(text), { code, outcome, worthRetrying }, text)
  }
})

t.test('a limit on all commands is distinguished from one on this command', async (t) => {
  const quotas = texts.map(([text]) => text).filter((text) => classifyRedisError(text).isQuota)
  t.ok(quotas.length >= 3)
  for (const text of quotas) t.match(text, /clients reached|requests? limit exceeded|concurrent connections/)
  for (const text of [
    'ERR max request size exceeded',
    'ERR max key size exceeded',
    'OOM command not allowed',
  ]) {
    t.notOk(classifyRedisError(text).isQuota, text)
  }
})

t.test('a key of the wrong type is QUEUE_DAMAGED, in a command and in a script', async (t) => {
  const wrongType = 'WRONGTYPE Operation against a key holding the wrong kind of value'
  for (const text of [
    wrongType,
    `${wrongType} script: 5a1f`,
    `ERR Error running script (call to f_5a): ${wrongType}`,
  ]) {
    t.match(classifyRedisError(text), { code: 'QUEUE_DAMAGED', worthRetrying: false })
  }
})

t.test('a command that may have been executed is never retried', async (t) => {
  for (const [text, , outcome] of texts) {
    if (outcome === 'unknown') t.notOk(classifyRedisError(text).worthRetrying, text)
  }
})

t.test('an error name of Redis within another text does not match', async (t) => {
  t.equal(classifyRedisError('job LOADING failed').code, 'INTERNAL')
  t.equal(classifyRedisError('LOADINGDOCK').code, 'INTERNAL')
})

t.test('exactly the texts with the code REDIS_LIMIT count as limit errors', async (t) => {
  for (const [text, code] of texts) t.equal(isLimitError(text), code === 'REDIS_LIMIT', text)
})

t.test('the error of a write states its outcome; that of a read has none', async (t) => {
  const cause = new Error('read ECONNRESET')
  t.match(fromRedisError(cause, true), {
    code: 'REDIS_UNAVAILABLE',
    details: { outcome: 'unknown', cause },
  })
  t.notOk('outcome' in fromRedisError(cause, false).details)
})

t.test('a SluiceError is returned as it is, and anything else becomes one', async (t) => {
  const ours = new SluiceError('JOB_NOT_FOUND')
  t.equal(fromRedisError(ours, true), ours)
  t.match(fromRedisError('LOADING Redis …', true), {
    code: 'REDIS_LOADING',
    details: { outcome: 'not_executed' },
  })
  const bug = fromRedisError(new TypeError('x is not a function'), true)
  t.match(bug, { code: 'INTERNAL', details: { outcome: 'unknown' } })
  t.notOk('retryAfterS' in bug.details, 'waiting does not fix a bug')
})

t.test('the text of Redis is never in the response: it may contain keys and addresses', async (t) => {
  for (const [text] of texts) {
    if (text !== '') t.notOk(fromRedisError(new Error(text), true).message.includes(text), text)
  }
})
