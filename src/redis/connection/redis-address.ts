/**
 * Where Redis is and as whom: REDIS_URL and REDIS_TLS_*, as ioredis wants to have them. The certificates are read at
 * the start, which one that is no good ends with a sentence, and again at each connect: ones that were replaced meanwhile
 * take effect with the next connection, and while they cannot be used the last ones that could are.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import type { RedisOptions } from 'ioredis'
import type { Logger } from 'pino'
import type { Config } from '../../config/schema.ts'

/** Where Redis is: a URL, or the unix socket of a private server. */
export type RedisAddress = { url: string } | { socket: string }

export interface ConnectionTarget {
  /** For ioredis to read, which lets it overrule the options. `undefined`: the options say all. */
  url: string | undefined
  options: Pick<RedisOptions, 'path' | 'tls' | 'username' | 'password'>
}

export type TlsSettings = Pick<Config, 'REDIS_TLS_CA' | 'REDIS_TLS_CERT' | 'REDIS_TLS_KEY'>

/** `unix://user:password@/path`, or `unix:///path`. The URLs of the standard want a host between `@` and path. */
const UNIX_URL = /^unix:\/\/(?:([^:@/]*):([^@/]*)@)?(.+)$/

/** Throws a sentence for a URL or a file that cannot be used; nothing that may be secret is in it. */
export function connectionTarget(
  settings: TlsSettings,
  address: RedisAddress,
  log: Logger,
): ConnectionTarget {
  if ('socket' in address) return { url: undefined, options: { path: address.socket } }
  const [, username, password, path] = UNIX_URL.exec(address.url) ?? []
  if (path !== undefined) return { url: undefined, options: { path, ...login(username, password) } }
  const url = parse(address.url)
  if (url.protocol !== 'rediss:') return { url: url.href, options: {} }
  // ioredis would take it for the options of TLS, in place of ours; some providers write `?tls=true`.
  url.searchParams.delete('tls')
  return { url: url.href, options: { tls: tlsOptions(settings, url.hostname, log) } }
}

function parse(text: string): URL {
  try {
    const url = new URL(text)
    login(url.username, url.password)
    return url
  } catch {
    throw unreadable()
  }
}

function login(username = '', password = ''): ConnectionTarget['options'] {
  try {
    const secret = password === '' ? {} : { password: decodeURIComponent(password) }
    return username === '' ? secret : { username: decodeURIComponent(username), ...secret }
  } catch {
    throw unreadable()
  }
}

function unreadable(): Error {
  return new Error(
    'REDIS_URL cannot be read: what is special in its user or password has to be escaped (@ as %40)',
  )
}

function tlsOptions(
  settings: TlsSettings,
  hostname: string,
  log: Logger,
): Exclude<RedisOptions['tls'], undefined> {
  let context = readContext(settings)
  let told: string | undefined
  return {
    // Proxies in front of many servers tell them apart by it. An address is no name.
    ...(isIP(hostname.replace(/^\[|\]$/g, '')) === 0 ? { servername: hostname } : {}),
    // Also where the environment has NODE_TLS_REJECT_UNAUTHORIZED=0.
    rejectUnauthorized: true,
    // ioredis copies the options at each connect, and is stuck for good when that throws.
    get secureContext() {
      try {
        context = readContext(settings)
        told = undefined
      } catch (error) {
        const { message } = error as Error
        if (message !== told) log.warn({ reason: message }, 'the certificates from before are used on')
        told = message
      }
      return context
    },
  }
}

function readContext(settings: TlsSettings): SecureContext {
  const ca = read(settings, 'REDIS_TLS_CA', certificate)
  const cert = read(settings, 'REDIS_TLS_CERT', certificate)
  const key = read(settings, 'REDIS_TLS_KEY', privateKey)
  // Half of a rotation looks like this too.
  if (cert && key && !cert.parsed.checkPrivateKey(key.parsed))
    throw new Error('REDIS_TLS_KEY is not the key of REDIS_TLS_CERT')
  return createSecureContext({
    ...(ca && { ca: ca.pem }),
    ...(cert && { cert: cert.pem }),
    ...(key && { key: key.pem }),
  })
}

const certificate = { what: 'a certificate', parse: (pem: string) => new X509Certificate(pem) }
const privateKey = { what: 'a private key without a password', parse: createPrivateKey }

function read<T>(
  settings: TlsSettings,
  name: keyof TlsSettings,
  { what, parse }: { what: string; parse: (pem: string) => T },
): { pem: string; parsed: T } | undefined {
  const path = settings[name]
  if (path === undefined) return undefined
  let pem: string
  try {
    pem = readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`${name} cannot be read: ${(error as Error).message}`)
  }
  try {
    return { pem, parsed: parse(pem) }
  } catch {
    throw new Error(`${name} (${path}) does not hold ${what} in PEM form`)
  }
}
