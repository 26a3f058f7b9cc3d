/**
 * The request's id (taken over when it is sane, else made), echoed as X-Request-Id; and, only when asked for, a log
 * line for every answer: a line costs about as much as a whole read out of memory.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'

/** Short enough for a log, and nothing that could break one. */
const SANE = /^[A-Za-z0-9._:-]{1,128}$/

/** Unique over processes and restarts: 48 random bits, then a counter. */
export function createRequestIds(): (request: Pick<IncomingMessage, 'headers'>) => string {
  const process = randomBytes(6).toString('base64url')
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    return typeof given === 'string' && SANE.test(given) ? given : `${process}-${(count++).toString(36)}`
  }
}

export interface RequestLoggingOptions {
  /** Where every answer is told; `undefined`: nowhere. */
  log: Logger | undefined
}

export const requestLoggingPlugin = fp<RequestLoggingOptions>(async (app, { log }) => {
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    done()
  })
  if (!log) return
  app.addHook('onResponse', (request, reply, done) => {
    const ms = Math.round(reply.elapsedTime * 100) / 100
    log.info({ ...describeRequest(request), status: reply.statusCode, ms }, 'answered')
    done()
  })
})

/** For a log: which request, and whose, where that is known. The route, not the URL: an id or a query may be somebody's secret. */
export function describeRequest({ method, id, routeOptions, access }: FastifyRequest) {
  const key = access?.keyId ? { key: access.keyId } : {}
  return { method, route: routeOptions.url ?? null, requestId: id, ...key }
}
