/**
 * Around this process, so that a fuzz run asks nobody on the network whatever the service makes of what it is told: no
 * socket leads anywhere but to this machine, and no name but `localhost` is looked up. What was tried is told.
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

/** Stands until the test ends. Returns what came up against it. */
export function fence(t: Test): string[] {
  const crossed: string[] = []
  const { lookup } = dns
  const { connect } = Socket.prototype
  type Done = (error: Error) => void

  dns.lookup = Object.assign(
    (name: string, ...rest: unknown[]) => {
      if (name === 'localhost' || isIP(name) !== 0) return Reflect.apply(lookup, dns, [name, ...rest])
      crossed.push(`the name ${name} was looked up`)
      process.nextTick(rest.at(-1) as Done, Object.assign(new Error('fenced'), { code: 'ENOTFOUND' }))
    },
    { __promisify__: lookup.__promisify__ },
  ) as typeof lookup
  Socket.prototype.connect = function (this: Socket, ...args: unknown[]) {
    // node:net gives its own calls the arguments in a list.
    const [first] = (Array.isArray(args[0]) ? args[0] : args) as [Target | number | string]
    const { path, host = 'localhost' } = typeof first === 'object' ? first : { host: 'localhost' }
    if (path !== undefined || isLoopback(host) || /^::ffff:7f/i.test(host)) {
      return Reflect.apply(connect, this, args)
    }
    crossed.push(`${host} was connected to`)
    return this.destroy(Object.assign(new Error('fenced'), { code: 'ENETUNREACH' }))
  } as typeof connect
  syncBuiltinESMExports()
  t.teardown(() => {
    dns.lookup = lookup
    Socket.prototype.connect = connect
    syncBuiltinESMExports()
  })
  return crossed
}
