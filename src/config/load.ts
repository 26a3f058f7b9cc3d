/** Reads the settings from an environment. Pure; reports every problem at once. */
import { aliases, type Config, ConfigSchema } from './schema.ts'

/** All problems of an environment, one sentence each. Values are never repeated, since they may be secret. */
export class ConfigError extends Error {
  readonly problems: string[]
  constructor(problems: string[]) {
    super(`The configuration is not valid:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** `env`: as in process.env. Throws a {@link ConfigError} with every problem. */
export function loadConfig(env: Record<string, string | undefined>): Config {
  const problems: string[] = []
  const config: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries<SettingSchema>(ConfigSchema.properties)) {
    const raw = rawValue(name, env)
    if (raw === undefined) {
      if (schema.default !== undefined) config[name] = schema.default
      continue
    }
    const parsed = parseValue(raw.value, schema)
    if (typeof parsed === 'object') problems.push(`${raw.name} ${parsed.problem}`)
    else config[name] = parsed
  }
  problems.push(...contradictions(config as Config))
  if (problems.length > 0) throw new ConfigError(problems)
  return config as Config
}

/** The JSON Schema keywords that settings use. */
export interface SettingSchema {
  type?: string
  enum?: string[]
  default?: unknown
  description?: string
  minimum?: number
  maximum?: number
  pattern?: string
  minLength?: number
}

function rawValue(name: string, env: Record<string, string | undefined>) {
  const names = [name, ...Object.keys(aliases).filter((alias) => aliases[alias] === name)]
  for (const candidate of names) {
    const value = env[candidate]?.trim()
    // An empty variable counts as unset, since `.env` files and compose files cannot express it otherwise.
    if (value !== undefined && value !== '') return { name: candidate, value }
  }
  return undefined
}

function parseValue(value: string, schema: SettingSchema): string | number | boolean | { problem: string } {
  if (schema.enum) {
    return schema.enum.includes(value) ? value : { problem: `must be one of ${schema.enum.join(', ')}` }
  }
  if (schema.type === 'boolean') {
    if (value === 'true' || value === '1') return true
    if (value === 'false' || value === '0') return false
    return { problem: 'must be true or false' }
  }
  if (schema.type === 'integer') {
    const number = Number(value)
    const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = schema
    if (/^\d+$/.test(value) && number >= minimum && number <= maximum) return number
    return { problem: `must be a whole number from ${minimum} to ${maximum}` }
  }
  if (schema.minLength !== undefined && value.length < schema.minLength)
    return { problem: `must have at least ${schema.minLength} characters` }
  if (schema.pattern && !new RegExp(schema.pattern).test(value))
    return { problem: `must match ${schema.pattern}` }
  return value
}

function contradictions(config: Config): string[] {
  const problems: string[] = []
  if (
    config.REDIS_POOL_ABSOLUTE_MAX === undefined &&
    config.REDIS_RESERVED_CONNECTIONS >= config.REDIS_PROVIDER_LIMIT
  ) {
    problems.push('REDIS_RESERVED_CONNECTIONS must be below REDIS_PROVIDER_LIMIT')
  }
  if (config.NODE_ENV === 'production' && config.REDIS_URL !== undefined && config.SECRET === undefined) {
    problems.push(
      'SECRET is missing. It signs leases; set the same value on every replica (openssl rand -hex 32)',
    )
  }
  if (config.SECRET?.split(',').some((secret) => secret.length < 32)) {
    problems.push('SECRET must have at least 32 characters, before and after each comma')
  }
  if (config.DURABILITY_REPLICAS > 0 && 2 * config.DURABILITY_TIMEOUT >= config.REDIS_COMMAND_TIMEOUT) {
    problems.push(
      'REDIS_COMMAND_TIMEOUT must be more than twice DURABILITY_TIMEOUT, since an enqueue may send WAIT twice',
    )
  }
  if ((config.REDIS_TLS_CERT === undefined) !== (config.REDIS_TLS_KEY === undefined))
    problems.push('REDIS_TLS_CERT and REDIS_TLS_KEY must be set together')
  for (const name of ['REDIS_TLS_CA', 'REDIS_TLS_CERT', 'REDIS_TLS_KEY'] as const) {
    if (config[name] !== undefined && !config.REDIS_URL?.startsWith('rediss://'))
      problems.push(`${name} requires a REDIS_URL that begins with rediss://`)
  }
  return problems
}

/** Whether an address to listen on is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}
