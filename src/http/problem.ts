/**
 * Sends every error as `application/problem+json` (RFC 9457): errors of the domain, rejections by Fastify, unknown routes
 * and input that is not HTTP. An unexpected error becomes a 500 that reveals only the request id, and one line in the log.
 */
import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'
import { asSluiceError, type ErrorCode, type Problem, SluiceError, toProblem } from '../errors.ts'
import type { RefusalPace } from './clients/refusal-pace.ts'
import type { Refusals } from './refusals.ts'
import { describeRequest } from './request-logging.ts'

/** The codes of errors that Fastify and Node raise for bad requests. */
const frameworkErrors: Record<string, ErrorCode> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'PAYLOAD_TOO_LARGE',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'UNSUPPORTED_MEDIA_TYPE',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'BAD_HTTP',
  FST_ERR_BAD_URL: 'BAD_HTTP',
  FST_ERR_MAX_PARAM_LENGTH: 'ROUTE_NOT_FOUND',
  ECONNRESET: 'BAD_HTTP',
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
}

/** How long a client gets to read the response before its socket is destroyed. */
const LINGER_MS = 500

export interface ProblemOptions {
  refusals: Refusals
  refusalPace: Pick<RefusalPace, 'send'>
}

export const problemPlugin = fp<ProblemOptions>(async (app, { refusals, refusalPace }) => {
  const allowedMethods = collectMethods(app)
  const sendProblem = createProblemSender(refusals, refusalPace)
  app.setErrorHandler((error, request, reply) => sendProblem(toProblemError(error), request, reply))

  app.setNotFoundHandler((request, reply) => {
    const methods = allowedMethods(request.url)
    // A route that serves files finds none under this path.
    if (methods.length === 0 || methods.includes(request.method))
      return sendProblem(new SluiceError('ROUTE_NOT_FOUND'), request, reply)
    reply.header('allow', methods.join(', '))
    return sendProblem(new SluiceError('METHOD_NOT_ALLOWED'), request, reply)
  })
})

/** For Fastify's `frameworkErrors`, such as a path that cannot be decoded. No route and no hook runs for these. */
export function createFrameworkErrorHandler({ refusals, refusalPace }: ProblemOptions) {
  const sendProblem = createProblemSender(refusals, refusalPace)
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    reply.header('x-request-id', request.id)
    void sendProblem(toProblemError(error), request, reply)
  }
}

function createProblemSender(refusals: Refusals, refusalPace: Pick<RefusalPace, 'send'>) {
  return (error: SluiceError, request: FastifyRequest, reply: FastifyReply) => {
    const problem = { ...toProblem(error), instance: `urn:request:${request.id}` }
    const log = refusals.note(error.code)
    if (log) logFailure(log, error, problem, request)
    const { retryAfterS = defaultRetryAfterS(problem) } = error.details
    if (retryAfterS !== undefined) reply.header('retry-after', retryAfterS)
    // Serialized here, not by the route's schema: a route that forgot to declare the problem must still send it.
    const text = JSON.stringify(problem)
    reply.code(problem.status).type('application/problem+json')
    if (!isRefusal(problem)) return reply.send(text)
    const isPaced = refusalPace.send(() => reply.send(text))
    if (!isPaced) request.raw.socket.destroy()
    return undefined
  }
}

/** Whether the request was refused before any work was done for it. A missing job or a conflict is an answer. */
function isRefusal({ status, code }: Problem): boolean {
  return REFUSED_STATUSES.has(status) || code === ROUTE_NOT_FOUND
}

const REFUSED_STATUSES: ReadonlySet<number> = new Set([400, 401, 403, 405, 413, 415, 421, 429])
const ROUTE_NOT_FOUND: ErrorCode = 'ROUTE_NOT_FOUND'

/**
 * For Fastify's `clientErrorHandler`: Node could not parse a request, or its headers were too large or too slow. The
 * response has no `instance` and no X-Request-Id, since Fastify has seen no request.
 */
export function createClientErrorHandler(refusals: Refusals) {
  return (error: NodeJS.ErrnoException, socket: Socket): void => {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const problem = toProblem(new SluiceError(frameworkErrors[error.code ?? ''] ?? 'BAD_HTTP'))
    const { status, code } = problem
    refusals.note(code as ErrorCode)?.info({ status, code, reason: error.code }, 'Request rejected')
    const body = JSON.stringify(problem)
    socket.end(
      `HTTP/1.1 ${problem.status} ${problem.title}\r\nContent-Type: application/problem+json\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    )
    // Destroy sockets that the peer leaves open: otherwise a slow sender could keep one forever.
    const linger = setTimeout(() => socket.destroy(), LINGER_MS)
    socket.once('close', () => clearTimeout(linger))
  }
}

function toProblemError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error
  const { code, statusCode } = error as FastifyError
  const known = frameworkErrors[code]
  if (known) return new SluiceError(known)
  // Any other error that Fastify blames on the client.
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) return new SluiceError('BAD_HTTP')
  return asSluiceError(error)
}

function logFailure(log: Logger, error: SluiceError, problem: Problem, request: FastifyRequest): void {
  const { status, code, outcome } = problem
  const line = { ...describeRequest(request), status, code, outcome }
  if (status === 500)
    log.error({ ...line, ...describeError(error.cause ?? error) }, 'Request failed unexpectedly')
  else if (status > 500) log.warn({ ...line, reason: causeOf(error) }, 'Request failed')
  else log.info(line, 'Request rejected')
}

/** Message and stack only: an ioredis error also carries its command, and with it a client's data. */
function describeError(error: unknown): { reason: string; stack?: string | undefined } {
  return error instanceof Error ? { reason: error.message, stack: error.stack } : { reason: String(error) }
}

/** Every 429 and 503 problem has a Retry-After, s: short if retryable, a minute if an operator has to act first. */
function defaultRetryAfterS({ status, retryable }: Problem): number | undefined {
  if (status !== 503 && status !== 429) return undefined
  return retryable ? 1 : 60
}

function causeOf(error: SluiceError): string | undefined {
  return error.cause instanceof Error ? error.cause.message : undefined
}

/** Returns the methods of a path, to distinguish 405 from 404, which Fastify's router does not. */
function collectMethods(app: Pick<FastifyInstance, 'addHook'>): (url: string) => string[] {
  const routes: { pattern: RegExp; methods: string[] }[] = []
  app.addHook('onRoute', ({ url, method }) => {
    const pattern = new RegExp(
      `^${url
        .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
        .replace(/:[^/]+/g, '[^/]+')
        .replace(/\*/g, '.*')}$`,
    )
    routes.push({ pattern, methods: [method].flat() })
  })
  return (url) => {
    const path = url.split('?', 1)[0]!
    return [...new Set(routes.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods))]
  }
}
