/**
 * Who asks (`Authorization: Bearer`, RFC 6750), and whether the route is for that one: every route has declared its scope
 * (contract.ts), and what nobody granted is refused. Which queues a caller may see is asked where the queue is known.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { type Access, anonymous, type Scope, unauthenticated } from '../auth/access.ts'
import type { KeyRing } from '../auth/key-ring.ts'
import { SluiceError } from '../errors.ts'
import { addRouteGuard } from './route-guard.ts'

declare module 'fastify' {
  interface FastifyRequest {
    access: Access
  }
}

export interface AuthenticationOptions {
  keyRing: KeyRing
}

/** RFC 6750 §2.1, as nearly everyone writes it; and the scheme in any case, as RFC 9110 §11.1 has it. */
const USUAL = 'Bearer '
const BEARER = /^Bearer +(\S+)$/i

export const authenticationPlugin = fp<AuthenticationOptions>(async (app, { keyRing }) => {
  // Nobody yet: set before the route looks at it.
  app.decorateRequest('access', null as unknown as Access)
  app.addHook('onRoute', (route) => {
    const { scope = 'none' } = route.config ?? {}
    addRouteGuard(route, (request, reply, done) => {
      request.access = accessOf(request, reply, scope)
      if (scope !== 'none' && !request.access.hasScope(scope)) refuseScope(request.access, reply, scope)
      done()
    })
  })

  function accessOf(request: FastifyRequest, reply: FastifyReply, scope: Scope | 'none'): Access {
    if (!keyRing.requiresKey()) return anonymous
    const { authorization } = request.headers
    if (authorization !== undefined) return authenticate(authorization, reply)
    if (scope === 'none') return unauthenticated
    return refuse(reply, 'This service wants an API key. Send Authorization: Bearer <key>.')
  }

  function authenticate(header: string, reply: FastifyReply): Access {
    const secret = header.startsWith(USUAL)
      ? header.slice(USUAL.length).trimStart()
      : BEARER.exec(header)?.[1]
    const access = secret === undefined ? undefined : keyRing.find(secret)
    return access ?? refuse(reply, 'This API key is not valid, or no longer.', 'invalid_token')
  }
})

function refuse(reply: FastifyReply, detail: string, error?: string): never {
  reply.header('www-authenticate', `Bearer realm="sluice"${error === undefined ? '' : `, error="${error}"`}`)
  throw new SluiceError('UNAUTHORIZED', { detail })
}

function refuseScope({ keyId }: Access, reply: FastifyReply, scope: Scope): never {
  reply.header('www-authenticate', `Bearer realm="sluice", error="insufficient_scope", scope="${scope}"`)
  throw new SluiceError('MISSING_SCOPE', {
    detail: `The key ${keyId} does not have the scope ${scope}. Ask whoever made it for one that has.`,
  })
}
