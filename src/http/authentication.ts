/**
 * Authenticates a request by its API key (`Authorization: Bearer`, RFC 6750) and checks the scope that its route declares
 * (route-contract.ts). Access to a queue is checked later, by the routes, which know the queue.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { type Access, anonymous, type Scope, unauthenticated } from '../auth/access.ts'
import type { KeyRing } from '../auth/key-ring.ts'
import { SluiceError } from '../errors.ts'
import { addRouteGuard } from './route-guard.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Set before any handler runs. A request that waits gets a new one when its key is changed. */
    access: Access
    /**
     * Looks the key up again. False if the request may not go on: its key lacks the scope (by default that of the route),
     * or cannot see the queue.
     */
    mayContinue(scope: Scope | undefined, queue: string | undefined): boolean
  }
  interface FastifyReply {
    /** Throws MISSING_SCOPE, for a scope beyond that of the route. */
    requireScope(scope: Scope): void
  }
}

export interface AuthenticationOptions {
  keyRing: KeyRing
}

/** The common spelling (RFC 6750 §2.1), matched without a regular expression. */
const USUAL_PREFIX = 'Bearer '
/** Any other spelling: the scheme is case-insensitive (RFC 9110 §11.1). */
const BEARER = /^Bearer +(\S+)$/i

export const authenticationPlugin = fp<AuthenticationOptions>(async (app, { keyRing }) => {
  // The guard of each route replaces the null before anything reads it.
  app.decorateRequest('access', null as unknown as Access)
  app.decorateReply('requireScope', function (this: FastifyReply, scope: Scope) {
    if (!this.request.access.hasScope(scope)) rejectScope(this.request.access, this, scope)
  })
  app.decorateRequest('mayContinue', function (this: FastifyRequest, scope, queue) {
    if (!isInForce(keyRing, this.access)) {
      const access = accessBy(this.headers.authorization)
      if (!access) return false
      this.access = access
    }
    const { scope: ofRoute = 'none' } = this.routeOptions.config
    const wanted = scope ?? ofRoute
    return (
      (wanted === 'none' || this.access.hasScope(wanted)) &&
      (queue === undefined || this.access.canAccessQueue(queue))
    )
  })
  app.addHook('onRoute', (route) => {
    const { scope = 'none' } = route.config ?? {}
    addRouteGuard(route, (request, reply, done) => {
      request.access = accessOf(request, reply, scope)
      if (scope !== 'none' && !request.access.hasScope(scope)) rejectScope(request.access, reply, scope)
      done()
    })
  })

  function accessOf(request: FastifyRequest, reply: FastifyReply, scope: Scope | 'none'): Access {
    if (!keyRing.requiresKey()) return anonymous
    const { authorization } = request.headers
    if (authorization !== undefined) return authenticate(authorization, reply)
    if (scope === 'none') return unauthenticated
    return rejectKey(reply, 'The request has no API key. Send `Authorization: Bearer <key>`.')
  }

  function authenticate(header: string, reply: FastifyReply): Access {
    const detail = 'The API key is unknown or revoked. Send a valid key as `Authorization: Bearer <key>`.'
    return accessBy(header) ?? rejectKey(reply, detail, 'invalid_token')
  }

  function accessBy(header: string | undefined): Access | undefined {
    if (header === undefined) return undefined
    const secret = header.startsWith(USUAL_PREFIX)
      ? header.slice(USUAL_PREFIX.length).trimStart()
      : BEARER.exec(header)?.[1]
    return secret === undefined ? undefined : keyRing.find(secret)
  }
})

/** Whether the access may be used as it was found. A service that gets its first key stops serving callers without one. */
export function isInForce(keyRing: Pick<KeyRing, 'requiresKey'>, access: Access): boolean {
  return access === anonymous ? !keyRing.requiresKey() : access.isLive()
}

function rejectKey(reply: FastifyReply, detail: string, error?: string): never {
  reply.header('www-authenticate', `Bearer realm="sluice"${error === undefined ? '' : `, error="${error}"`}`)
  throw new SluiceError('UNAUTHORIZED', { detail })
}

function rejectScope({ keyId }: Access, reply: FastifyReply, scope: Scope): never {
  reply.header('www-authenticate', `Bearer realm="sluice", error="insufficient_scope", scope="${scope}"`)
  throw new SluiceError('MISSING_SCOPE', {
    detail: `The API key ${keyId} lacks the scope ${scope}. Use a key that has it.`,
  })
}
