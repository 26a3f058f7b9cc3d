/**
 * Keeps a fuzz run off the network, whatever the service does with generated URLs: sockets may only connect to this
 * machine, and only `localhost` may be resolved. Records every violation.
 */
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'
import { isIP, Socket } from 'node:net'
import type { Test } from 'tap'
import { isLoopback } from './urls.ts'

interface Target {
  path?: string
  host?: string
}

/** Active until the test ends. Returns the list of violations. */
export function blockNetwork(t: Test): string[] {
  const violations: string[] = []
  const { lookup } = dns
  const { lookup: lookupPromise, Resolver } = dns.promises
  const notFound = async (): Promise<never> => {
    throw Object.assign(new Error('blocked by network-guard.ts'), { code: 'ENOTFOUND' })
  }
  const { connect } = Socket.prototype
  type Done = (error: Error) => void

  dns.lookup = Object.assign(
    (name: string, ...rest: unknown[]) => {
      if (name === 'localhost' || isIP(name) !== 0) return Reflect.apply(lookup, dns, [name, ...rest])
      violations.push(`resolved the name ${name}`)
      process.nextTick(
        rest.at(-1) as Done,
        Object.assign(new Error('blocked by network-guard.ts'), { code: 'ENOTFOUND' }),
      )
    },
    { __promisify__: lookup.__promisify__ },
  ) as typeof lookup
  dns.promises.lookup = (async (name: string) => {
    if (name === 'localhost') return [{ address: '127.0.0.1', family: 4 }]
    violations.push(`resolved the name ${name}`)
    throw Object.assign(new Error('blocked by network-guard.ts'), { code: 'ENOTFOUND' })
  }) as unknown as typeof dns.promises.lookup
  // The service asks DNS before it asks the operating system.
  dns.promises.Resolver = class extends Resolver {
    override resolve4 = notFound
    override resolve6 = notFound
  }
  Socket.prototype.connect = function (this: Socket, ...args: unknown[]) {
    // node:net passes the arguments of its own calls as an array.
    const [first] = (Array.isArray(args[0]) ? args[0] : args) as [Target | number | string]
    const { path, host = 'localhost' } = typeof first === 'object' ? first : { host: 'localhost' }
    if (path !== undefined || isLoopback(host) || /^::ffff:7f/i.test(host)) {
      return Reflect.apply(connect, this, args)
    }
    violations.push(`connected to ${host}`)
    return this.destroy(Object.assign(new Error('blocked by network-guard.ts'), { code: 'ENETUNREACH' }))
  } as typeof connect
  syncBuiltinESMExports()
  t.teardown(() => {
    dns.lookup = lookup
    Object.assign(dns.promises, { lookup: lookupPromise, Resolver })
    Socket.prototype.connect = connect
    syncBuiltinESMExports()
  })
  return violations
}
