/**
 * Gives each request an id (the client's X-Request-Id if it is safe, otherwise a generated one) and returns it in
 * X-Request-Id. Logs every response only when configured: one line costs about as much as a whole cached read.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'

/** Short enough for a log line, and without characters that could break one. */
const SAFE_ID = /^[A-Za-z0-9._:-]{1,128}$/

/** Returns a generator of ids that are unique across processes and restarts: 48 random bits, then a counter. */
export function createRequestIds(): (request: Pick<IncomingMessage, 'headers'>) => string {
  const prefix = randomBytes(6).toString('base64url')
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    return typeof given === 'string' && SAFE_ID.test(given) ? given : `${prefix}-${(count++).toString(36)}`
  }
}

export interface RequestLoggingOptions {
  /** Logs every response here; `undefined` disables it. */
  log: Logger | undefined
}

export const requestLoggingPlugin = fp<RequestLoggingOptions>(async (app, { log }) => {
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    // In this hook, since a hook of its own would cost more than the header.
    reply.header('x-content-type-options', 'nosniff')
    done()
  })
  if (!log) return
  app.addHook('onResponse', (request, reply, done) => {
    const ms = Math.round(reply.elapsedTime * 100) / 100
    log.info({ ...describeRequest(request), status: reply.statusCode, ms }, 'Request completed')
    done()
  })
})

/** The log fields of a request. Contains the route instead of the URL, because an id or query may be secret. */
export function describeRequest({ method, id, routeOptions, access }: FastifyRequest) {
  const key = access?.keyId ? { key: access.keyId } : {}
  return { method, route: routeOptions.url ?? null, requestId: id, ...key }
}
