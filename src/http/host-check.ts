/**
 * While there are no API keys, serves only hosts that no web page can point at this machine: a page whose own name
 * resolves to 127.0.0.1 (DNS rebinding) could otherwise read and enqueue jobs in the name of the browser's user. A
 * browser always sends Host, so a request without one (a load balancer's HTTP/1.0 probe) is served.
 */
import { isIP } from 'node:net'
import fp from 'fastify-plugin'
import type { KeyRing } from '../auth/key-ring.ts'
import { SluiceError } from '../errors.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Served for any Host: a probe, which shows nothing but whether the service works. */
    anyHost?: boolean
  }
}

export interface HostCheckOptions {
  keyRing: Pick<KeyRing, 'requiresKey'>
  /** ALLOWED_HOSTS. */
  allowedHosts: string
  /** ALLOW_ANONYMOUS: the service listens beyond loopback, where its clients use addresses and short names. */
  allowAnonymous: boolean
}

export const hostCheckPlugin = fp<HostCheckOptions>(async (app, options) => {
  const { keyRing, allowedHosts, allowAnonymous } = options
  const isServed = createHostMatcher(allowedHosts, allowAnonymous)
  /** Most clients of a service use one name for it. */
  let lastServed: string | undefined

  app.addHook('onRequest', (request, _reply, done) => {
    const { host } = request.headers
    if (host === undefined || host === lastServed || keyRing.requiresKey()) return done()
    if (isServed(host)) lastServed = host
    else if (!request.routeOptions.config?.anyHost) return done(refuse())
    done()
  })
})

function refuse(): SluiceError {
  return new SluiceError('MISDIRECTED_REQUEST', {
    detail:
      'Without API keys the service is served only as localhost, a loopback address, or a name in ALLOWED_HOSTS. ' +
      'Use one of these. Operator: add the name to ALLOWED_HOSTS, or create an API key.',
  })
}

/** `host`: the value of a Host header, with or without a port. */
export function createHostMatcher(allowedHosts: string, allowAnonymous: boolean): (host: string) => boolean {
  const allowed = allowedHosts
    .split(',')
    .map((name) => withoutPort(name.trim().toLowerCase()))
    .filter((name) => name !== '')
  const names = new Set(allowed.filter((name) => !name.startsWith('*')))
  /** `.example.com`. */
  const suffixes = allowed.filter((name) => name.startsWith('*.')).map((name) => name.slice(1))
  const isEveryHost = allowed.includes('*')

  return (host) => {
    const name = withoutPort(host.toLowerCase()).replace(/\.$/, '')
    if (isEveryHost || isLoopbackHost(name) || names.has(name)) return true
    if (suffixes.some((suffix) => name.length > suffix.length && name.endsWith(suffix))) return true
    return allowAnonymous && (isAddress(name) || /^[a-z0-9_-]+$/.test(name))
  }
}

function withoutPort(host: string): string {
  return host.replace(/:\d*$/, '')
}

function isLoopbackHost(name: string): boolean {
  if (name === 'localhost' || name.endsWith('.localhost') || name === '[::1]') return true
  return name.startsWith('127.') && isIP(name) === 4
}

/** No page can have an address as its own name unless that address served it. */
function isAddress(name: string): boolean {
  return isIP(name) === 4 || (name.startsWith('[') && name.endsWith(']') && isIP(name.slice(1, -1)) === 6)
}
