/** The Fastify instance and the plugins that every route shares, in the order in which their hooks run. Knows no feature. */
import Fastify, { type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { KeyRing } from '../auth/key-ring.ts'
import type { Config } from '../config/schema.ts'
import { authenticationPlugin } from './authentication.ts'
import { eventStreamPlugin } from './event-stream.ts'
import { gracefulClosePlugin } from './graceful-close.ts'
import { jsonBodyPlugin } from './json-body.ts'
import { openapiPlugin } from './openapi.ts'
import { pressurePlugin } from './pressure.ts'
import { answerClientError, createFrameworkErrorHandler, problemPlugin } from './problem.ts'
import { rateLimitPlugin } from './rate-limit.ts'
import { createRequestIds, requestLoggingPlugin } from './request-logging.ts'
import { requestValidationPlugin } from './request-validation.ts'
import { routeContractPlugin } from './route-contract.ts'

/** Fits the URL of GET /jobs?ids= with 200 generated ids. */
const MAX_HEADER_BYTES = 16_384

export function createHttpServer(config: Config, log: Logger): FastifyInstance {
  const http = Fastify({
    // Fastify's own logging would listen to every response. http/problem.ts logs failures.
    logger: false,
    genReqId: createRequestIds(),
    bodyLimit: config.BODY_LIMIT,
    requestTimeout: config.REQUEST_TIMEOUT,
    http: {
      headersTimeout: Math.min(5_000, config.REQUEST_TIMEOUT),
      maxHeaderSize: MAX_HEADER_BYTES,
      // Node checks for timed-out requests every 30 s by default, which would turn a timeout of 5 s into one of 35 s.
      connectionsCheckingInterval: 500,
    },
    routerOptions: { maxParamLength: 700 },
    clientErrorHandler: answerClientError,
    frameworkErrors: createFrameworkErrorHandler(failureLogOf(config, log)),
    // During shutdown the listener accepts no more connections, but a request that has arrived is still served.
    return503OnClosing: false,
    // http/graceful-close.ts closes connections, without cutting off responses that are still being written.
    forceCloseConnections: false,
  })
  http.server.maxConnections =
    config.MAX_CONNECTIONS === 0 ? Number.POSITIVE_INFINITY : config.MAX_CONNECTIONS
  return http
}

export interface HttpPluginOptions {
  config: Config
  log: Logger
  keyRing: KeyRing
  version: string
  /** Whether any route responds with an event stream, which needs the heartbeat timer. */
  usesEventStreams: boolean
}

export async function registerHttpPlugins(http: FastifyInstance, options: HttpPluginOptions): Promise<void> {
  const { config, log, keyRing, version, usesEventStreams } = options
  await http.register(problemPlugin, { log: failureLogOf(config, log) })
  await http.register(routeContractPlugin)
  await http.register(requestLoggingPlugin, { log: config.LOG_REQUESTS === 'all' ? log : undefined })
  await http.register(pressurePlugin, { maxEventLoopDelayMs: config.MAX_EVENT_LOOP_DELAY })
  await http.register(authenticationPlugin, { keyRing })
  await http.register(rateLimitPlugin)
  await http.register(jsonBodyPlugin)
  await http.register(requestValidationPlugin)
  await http.register(openapiPlugin, { version })
  if (usesEventStreams) {
    await http.register(eventStreamPlugin, {
      heartbeatMs: config.SSE_HEARTBEAT,
      maxBufferedBytes: config.SSE_MAX_BUFFERED,
    })
  }
  await http.register(gracefulClosePlugin)
}

/** `undefined`: failed requests are not logged. */
function failureLogOf(config: Config, log: Logger): Logger | undefined {
  return config.LOG_REQUESTS === 'none' ? undefined : log
}
