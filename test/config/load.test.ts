/** Settings: defaults, bounds, aliases and contradictions; every problem is reported and no value is repeated. */
import t from 'tap'
import { ConfigError, isLoopback, loadConfig } from '../../src/config/load.ts'
import { aliases, ConfigSchema } from '../../src/config/schema.ts'

interface Setting {
  type?: string
  enum?: string[]
  default?: unknown
  minimum: number
  maximum: number
  pattern?: string
  description?: string
}

const settings = Object.entries(ConfigSchema.properties as unknown as Record<string, Setting>)
const integers = settings.filter(([, { type }]) => type === 'integer')

/** The problems of an environment; throws when it has none. */
function problemsOf(env: Record<string, string>): string[] {
  try {
    loadConfig(env)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  throw new Error(`${JSON.stringify(env)} was accepted`)
}

t.test('an empty environment loads every default, and omits settings without one', async (t) => {
  const defaults = settings.filter(([, setting]) => setting.default !== undefined)
  t.same(loadConfig({}), Object.fromEntries(defaults.map(([name, setting]) => [name, setting.default])))
  t.match(loadConfig({}), { HOST: '127.0.0.1', PORT: 3000, NODE_ENV: 'development', BUILDING: false })
  t.equal(loadConfig({}).REDIS_URL, undefined)
})

t.test('every setting has a description', async (t) => {
  for (const [name, { description }] of settings) t.match(description, /\S.*\.$/, name)
})

t.test('an empty or blank variable counts as unset, and unknown variables are ignored', async (t) => {
  const blank = Object.fromEntries(settings.map(([name], index) => [name, index % 2 ? '' : '  ']))
  t.same(loadConfig({ ...blank, HOME: '/root', REDIS_POOL: 'x' }), loadConfig({}))
  t.same(loadConfig({ PORT: undefined }), loadConfig({}))
})

t.test('the names of the field reports are aliases', async (t) => {
  t.same(Object.keys(aliases).sort(), [
    'REDIS_MAX_CONNECTIONS',
    'REDIS_MAX_WAITING_CLIENTS',
    'REDIS_WORKER_MAX_CONCURRENT_OPS',
    'REDIS_WORKER_MAX_CONNECTIONS',
  ])
  for (const [alias, name] of Object.entries(aliases)) {
    t.equal(loadConfig({ [alias]: '77' })[name], 77, `${alias} sets ${name}`)
    t.equal(loadConfig({ [alias]: '77', [name]: '78' })[name], 78, `${name} wins over ${alias}`)
    t.equal(loadConfig({ [alias]: '77', [name]: '' })[name], 77, `an empty ${name} does not`)
    t.match(
      problemsOf({ [alias]: 'x' }),
      [new RegExp(`^${alias} `)],
      'a problem names the variable that was set',
    )
  }
})

t.test('a number is accepted within its bounds and refused one beyond', async (t) => {
  for (const [name, { minimum, maximum }] of integers) {
    // Keeps the reserve below the limit, which is a rule with a test of its own.
    const base = { REDIS_POOL_ABSOLUTE_MAX: '5' }
    for (const value of [minimum, maximum]) {
      t.match(loadConfig({ ...base, [name]: ` ${value} ` }), { [name]: value }, `${name} ${value}`)
    }
    for (const value of [minimum - 1, maximum + 1]) {
      const expected = `${name} must be a whole number from ${minimum} to ${maximum}`
      t.same(problemsOf({ ...base, [name]: String(value) }), [expected], `${name} ${value}`)
    }
  }
  for (const value of ['1.5', '1e3', '0x10', '+5', '5 5', 'NaN', 'Infinity']) {
    t.throws(() => loadConfig({ PORT: value }), ConfigError, value)
  }
})

t.test('flags, choices and patterns accept what they name and nothing else', async (t) => {
  for (const [value, flag] of Object.entries({ true: true, 1: true, false: false, 0: false })) {
    t.equal(loadConfig({ BUILDING: value }).BUILDING, flag, value)
  }
  t.same(problemsOf({ BUILDING: 'yes' }), ['BUILDING must be true or false'])
  t.equal(loadConfig({ LOG_LEVEL: 'trace' }).LOG_LEVEL, 'trace')
  t.same(problemsOf({ NODE_ENV: 'staging' }), ['NODE_ENV must be one of development, production, test'])
  for (const url of ['redis://h:1', 'rediss://u:p@h:1/0', 'unix:///tmp/r.sock']) {
    t.equal(loadConfig({ REDIS_URL: url }).REDIS_URL, url)
  }
  t.throws(() => loadConfig({ REDIS_URL: 'localhost:6379' }), ConfigError)
  for (const prefix of ['bull', '{bull}', 'my-app', 'app:prod', '{app:prod}', 'a b', '{', 'a[b]*?\\', 'é/'])
    t.equal(loadConfig({ QUEUE_PREFIX: prefix }).QUEUE_PREFIX, prefix)
  t.equal(loadConfig({ DEFAULT_QUEUE: 'Order Events/é' }).DEFAULT_QUEUE, 'Order Events/é')
  for (const queue of ['a:b', ':', 'a'.repeat(513)])
    t.throws(() => loadConfig({ DEFAULT_QUEUE: queue }), ConfigError, queue)
})

t.test('all problems are reported at once and none repeats a value, which may be secret', async (t) => {
  const secret = 'http://user:hunter2@host'
  const wrong = settings.filter(([, setting]) => setting.type !== 'string' || setting.pattern)
  const problems = problemsOf(Object.fromEntries(wrong.map(([name]) => [name, secret])))
  t.same(
    problems.map((problem) => problem.split(' ')[0]),
    wrong.map(([name]) => name),
  )
  const error = new ConfigError(problems)
  t.notMatch(error.message, 'hunter2')
  for (const problem of problems) t.ok(error.message.includes(`\n  - ${problem}`), problem)
})

t.test('a reserve that leaves no connection is refused, unless the total is given', async (t) => {
  const env = { REDIS_PROVIDER_LIMIT: '24', REDIS_RESERVED_CONNECTIONS: '24' }
  t.same(problemsOf(env), ['REDIS_RESERVED_CONNECTIONS must be below REDIS_PROVIDER_LIMIT'])
  t.ok(loadConfig({ ...env, REDIS_RESERVED_CONNECTIONS: '23' }))
  t.ok(loadConfig({ ...env, REDIS_POOL_ABSOLUTE_MAX: '5' }))
})

t.test('loopback is every address that only this machine can reach', async (t) => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost']) t.ok(isLoopback(host), host)
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.0.0.1.example.com', 'localhost.example.com']) {
    t.notOk(isLoopback(host), host)
  }
})

t.test('the wait for replicas must fit twice into the timeout of a command', async (t) => {
  const env = { DURABILITY_REPLICAS: '1', REDIS_COMMAND_TIMEOUT: '2000' }
  t.match(problemsOf({ ...env, DURABILITY_TIMEOUT: '1000' }), [
    /^REDIS_COMMAND_TIMEOUT must be more than twice/,
  ])
  t.ok(loadConfig({ ...env, DURABILITY_TIMEOUT: '999' }))
  t.ok(loadConfig({ REDIS_COMMAND_TIMEOUT: '2000', DURABILITY_TIMEOUT: '1000' }), 'no rule without replicas')
})

t.test('in production with REDIS_URL a secret is required', async (t) => {
  const env = { NODE_ENV: 'production', REDIS_URL: 'redis://h' }
  t.match(problemsOf(env), [/^SECRET is missing/])
  t.ok(loadConfig({ ...env, SECRET: 'x'.repeat(32) }))
  t.match(problemsOf({ ...env, SECRET: 'short' }), [/^SECRET must have at least 32 characters/])
  t.match(problemsOf({ ...env, SECRET: `${'x'.repeat(32)},old` }), [/^SECRET must have at least 32/])
  t.ok(loadConfig({ ...env, SECRET: `${'x'.repeat(32)},${'y'.repeat(32)}` }))
})
