/**
 * Turns REDIS_URL and REDIS_TLS_* into options of ioredis. Certificates are read at the start, which fails if
 * one is unusable, and again at each connect, so that renewed files take effect. An unusable file is then
 * ignored and the last good ones stay in use.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import type { RedisOptions } from 'ioredis'
import type { Logger } from 'pino'
import type { Config } from '../../config/schema.ts'

/** A URL, or the unix socket of the embedded server. */
export type RedisAddress = { url: string } | { socket: string }

export interface ConnectionTarget {
  /** Parsed by ioredis; it takes precedence over the options. `undefined`: the options are complete. */
  url: string | undefined
  options: Pick<RedisOptions, 'path' | 'tls' | 'username' | 'password'>
}

export type TlsSettings = Pick<Config, 'REDIS_TLS_CA' | 'REDIS_TLS_CERT' | 'REDIS_TLS_KEY'>

/**
 * `unix://user:password@/path` or `unix:///path`. The URL class rejects an empty host between `@` and the
 * path.
 */
const UNIX_URL = /^unix:\/\/(?:([^:@/]*):([^@/]*)@)?(.+)$/

/** Throws if the URL or a file cannot be used. The message contains no secrets. */
export function connectionTarget(
  settings: TlsSettings,
  address: RedisAddress,
  log: Logger,
): ConnectionTarget {
  if ('socket' in address) return { url: undefined, options: { path: address.socket } }
  const [, username, password, path] = UNIX_URL.exec(address.url) ?? []
  if (path !== undefined) return { url: undefined, options: { path, ...credentials(username, password) } }
  const url = parseUrl(address.url)
  if (url.protocol !== 'rediss:') return { url: url.href, options: {} }
  // Some providers write `?tls=true`, which ioredis would use in place of our TLS options.
  url.searchParams.delete('tls')
  return { url: url.href, options: { tls: tlsOptions(settings, url.hostname, log) } }
}

function parseUrl(text: string): URL {
  try {
    const url = new URL(text)
    credentials(url.username, url.password)
    return url
  } catch {
    throw invalidUrl()
  }
}

function credentials(username = '', password = ''): ConnectionTarget['options'] {
  try {
    const secret = password === '' ? {} : { password: decodeURIComponent(password) }
    return username === '' ? secret : { username: decodeURIComponent(username), ...secret }
  } catch {
    throw invalidUrl()
  }
}

function invalidUrl(): Error {
  return new Error(
    'REDIS_URL cannot be parsed: percent-encode special characters in its user and password (@ as %40)',
  )
}

function tlsOptions(
  settings: TlsSettings,
  hostname: string,
  log: Logger,
): Exclude<RedisOptions['tls'], undefined> {
  let context = readContext(settings)
  let lastWarning: string | undefined
  return {
    // A proxy in front of many servers selects one by this name (SNI). SNI does not allow IP addresses.
    ...(isIP(hostname.replace(/^\[|\]$/g, '')) === 0 ? { servername: hostname } : {}),
    // Overrides NODE_TLS_REJECT_UNAUTHORIZED=0.
    rejectUnauthorized: true,
    // Evaluated at each connect, when ioredis copies the options. If it threw, ioredis would never reconnect.
    get secureContext() {
      try {
        context = readContext(settings)
        lastWarning = undefined
      } catch (error) {
        const { message } = error as Error
        if (message !== lastWarning)
          log.warn({ reason: message }, 'TLS files for Redis cannot be used; the previous ones stay in use')
        lastWarning = message
      }
      return context
    },
  }
}

function readContext(settings: TlsSettings): SecureContext {
  const ca = readPem(settings, 'REDIS_TLS_CA', certificate)
  const cert = readPem(settings, 'REDIS_TLS_CERT', certificate)
  const key = readPem(settings, 'REDIS_TLS_KEY', privateKey)
  // Also the case while the files are being replaced.
  if (cert && key && !cert.parsed.checkPrivateKey(key.parsed))
    throw new Error('REDIS_TLS_KEY does not match REDIS_TLS_CERT')
  return createSecureContext({
    ...(ca && { ca: ca.pem }),
    ...(cert && { cert: cert.pem }),
    ...(key && { key: key.pem }),
  })
}

const certificate = { what: 'a certificate', parse: (pem: string) => new X509Certificate(pem) }
const privateKey = { what: 'an unencrypted private key', parse: createPrivateKey }

function readPem<T>(
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
    throw new Error(`${name} (${path}) does not contain ${what} in PEM format`)
  }
}
