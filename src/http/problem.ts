/**
 * Every answer that is an error, in one place: `application/problem+json` (RFC 9457) for what the domain throws, what
 * Fastify refuses, what no route answers to and what is not even HTTP. What nobody foresaw is a 500 that says nothing
 * but the request id, and one line in the log.
 */
import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Logger } from 'pino'
import { asSluiceError, type ErrorCode, type Problem, SluiceError, toProblem } from '../errors.ts'
import { describeRequest } from './request-logging.ts'

/** Fastify's and Node's own refusals, by their code. */
const refusals: Record<string, ErrorCode> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'PAYLOAD_TOO_LARGE',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'UNSUPPORTED_MEDIA_TYPE',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'BAD_HTTP',
  FST_ERR_BAD_URL: 'BAD_HTTP',
  FST_ERR_MAX_PARAM_LENGTH: 'ROUTE_NOT_FOUND',
  ECONNRESET: 'BAD_HTTP',
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
}

/** For an answer to reach a client that is told to go. */
const PARTING_MS = 500

export interface ProblemOptions {
  /** Where failures are told; `undefined`: nowhere. */
  log: Logger | undefined
}

export const problemPlugin = fp<ProblemOptions>(async (app, { log }) => {
  const allowed = collectMethods(app)

  const sendProblem = createProblemSender(log)
  app.setErrorHandler((error, request, reply) => sendProblem(toProblemError(error), request, reply))

  app.setNotFoundHandler((request, reply) => {
    const methods = allowed(request.url)
    if (methods.length === 0) return sendProblem(new SluiceError('ROUTE_NOT_FOUND'), request, reply)
    reply.header('allow', methods.join(', '))
    return sendProblem(new SluiceError('METHOD_NOT_ALLOWED'), request, reply)
  })
})

/** For Fastify's `frameworkErrors`: a path that cannot be read, which no route and no hook has seen. */
export function createFrameworkErrorHandler(log: Logger | undefined) {
  const sendProblem = createProblemSender(log)
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    reply.header('x-request-id', request.id)
    void sendProblem(toProblemError(error), request, reply)
  }
}

function createProblemSender(log: Logger | undefined) {
  return (error: SluiceError, request: FastifyRequest, reply: FastifyReply) => {
    const problem = { ...toProblem(error), instance: `urn:request:${request.id}` }
    if (log) logFailure(log, error, problem, request)
    const { retryAfterS = retryAfter(problem) } = error.details
    if (retryAfterS !== undefined) reply.header('retry-after', retryAfterS)
    // Sent as text: the problem was made from the table, and must reach the client even where a route forgot to name it.
    return reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem))
  }
}

/** For Fastify's `clientErrorHandler`: the socket spoke something that is not HTTP, or too slowly, or too much. */
export function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const problem = toProblem(new SluiceError(refusals[error.code ?? ''] ?? 'BAD_HTTP'))
  const body = JSON.stringify(problem)
  socket.end(
    `HTTP/1.1 ${problem.status} ${problem.title}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
  // Who does not hang up either is hung up on: a slow sender would keep the socket as long as it likes.
  const parting = setTimeout(() => socket.destroy(), PARTING_MS)
  socket.once('close', () => clearTimeout(parting))
}

function toProblemError(error: unknown): SluiceError {
  const { code, statusCode } = error as FastifyError
  if (error instanceof SluiceError) return error
  const known = refusals[code]
  if (known) return new SluiceError(known)
  // Something else of Fastify's that is the client's doing.
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) return new SluiceError('BAD_HTTP')
  return asSluiceError(error)
}

function logFailure(log: Logger, error: SluiceError, problem: Problem, request: FastifyRequest): void {
  const { status, code, outcome } = problem
  const line = { ...describeRequest(request), status, code, outcome }
  if (status === 500) log.error({ ...line, ...bare(error.cause ?? error) }, 'request broke')
  else if (status > 500) log.warn({ ...line, reason: causeOf(error) }, 'request failed')
  else log.info(line, 'request refused')
}

/** Message and stack alone: an error of a library may carry the command it failed on, and with it somebody's data. */
function bare(error: unknown): { reason: string; stack?: string | undefined } {
  return error instanceof Error ? { reason: error.message, stack: error.stack } : { reason: String(error) }
}

/** Every 429 and 503 has one: soon for what passes by itself, a minute for what somebody has to mend. */
function retryAfter({ status, retryable }: Problem): number | undefined {
  if (status !== 503 && status !== 429) return undefined
  return retryable ? 1 : 60
}

function causeOf(error: SluiceError): string | undefined {
  return error.cause instanceof Error ? error.cause.message : undefined
}

/** Which methods a path answers to: to tell 405 from 404, which Fastify's router does not. */
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
