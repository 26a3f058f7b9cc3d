/**
 * Who asks (`Authorization: Bearer`, RFC 6750), and whether the route is for that one: every route has declared its scope
 * (contract.ts), and what nobody granted is refused. Which queues a caller may see is asked where the queue is known.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { SluiceError } from '../errors.ts'
import { type Access, anyone, stranger } from '../keys/access.ts'
import type { KeyRing } from '../keys/key-ring.ts'

declare module 'fastify' {
  interface FastifyRequest {
    access: Access
  }
}

export interface AuthOptions {
  keyRing: KeyRing
}

/** RFC 6750 §2.1; the scheme in any case, as RFC 9110 §11.1 has it. */
const BEARER = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i

export const authPlugin = fp<AuthOptions>(async (app, { keyRing }) => {
  // Nobody yet: set before anything else looks at the request.
  app.decorateRequest('access', null as unknown as Access)
  app.addHook('onRequest', (request, reply, done) => {
    request.access = anyone
    if (!keyRing.demandsKey()) return done()
    const { scope = 'none' } = request.routeOptions.config
    const { authorization } = request.headers
    if (authorization !== undefined) request.access = authenticate(authorization, request, reply)
    else if (scope === 'none') request.access = stranger
    else refuse(request, reply, 'This service wants an API key. Send Authorization: Bearer <key>.')
    if (scope !== 'none' && !request.access.has(scope)) {
      reply.header('www-authenticate', `Bearer realm="sluice", error="insufficient_scope", scope="${scope}"`)
      throw new SluiceError('MISSING_SCOPE', {
        detail: `The key ${request.access.keyId} does not have the scope ${scope}. Ask whoever made it for one that has.`,
      })
    }
    done()
  })

  function authenticate(header: string, request: FastifyRequest, reply: FastifyReply): Access {
    const secret = BEARER.exec(header)?.[1]
    const access = secret === undefined ? undefined : keyRing.find(secret)
    return access ?? refuse(request, reply, 'This API key is not valid, or no longer.', 'invalid_token')
  }
})

function refuse(request: FastifyRequest, reply: FastifyReply, detail: string, error?: string): never {
  // Nothing of the queues is shown to somebody who is not known.
  request.access = stranger
  reply.header('www-authenticate', `Bearer realm="sluice"${error === undefined ? '' : `, error="${error}"`}`)
  throw new SluiceError('UNAUTHORIZED', { detail })
}
