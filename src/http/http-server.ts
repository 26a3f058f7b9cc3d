/** The Fastify instance and the plugins that every route shares, in the order in which their hooks run. Knows no feature. */
import { createServer, type RequestListener, type Server } from 'node:http'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { KeyRing } from '../auth/key-ring.ts'
import type { Config } from '../config/schema.ts'
import type { PacedTurns } from '../paced-turns.ts'
import { authenticationPlugin, isInForce } from './authentication.ts'
import { type ClientSockets, createClientSockets } from './clients/client-sockets.ts'
import { gracefulClosePlugin } from './clients/graceful-close.ts'
import { paceRequests } from './clients/pipelined-requests.ts'
import { createRefusalPace, type RefusalPace } from './clients/refusal-pace.ts'
import { createSendBudget, type SendBudget, sendBudgetPlugin } from './clients/send-budget.ts'
import { createWaits, type Waits, waitsPlugin } from './clients/waits.ts'
import { eventStreamPlugin } from './event-stream.ts'
import { hostCheckPlugin } from './host-check.ts'
import { jsonBodyPlugin } from './json-body.ts'
import { openapiPlugin } from './openapi.ts'
import { pageHeadersPlugin } from './page-headers.ts'
import { pressurePlugin } from './pressure.ts'
import { createClientErrorHandler, createFrameworkErrorHandler, problemPlugin } from './problem.ts'
import { rateLimitPlugin } from './rate-limit.ts'
import { createRefusals, type Refusals } from './refusals.ts'
import { createRequestIds, requestLoggingPlugin } from './request-logging.ts'
import { requestValidationPlugin } from './request-validation.ts'
import { routeContractPlugin } from './route-contract.ts'

/** Fits the URL of GET /jobs?ids= with 200 generated ids. */
const MAX_HEADER_BYTES = 16_384

export interface HttpServer {
  http: FastifyInstance
  guards: HttpGuards
}

/** What bounds the clients, and counts what they were refused. Closed with the server. */
export interface HttpGuards {
  sockets: ClientSockets
  sendBudget: SendBudget
  refusals: Refusals
  refusalPace: RefusalPace
}

export function createHttpServer(config: Config, log: Logger): HttpServer {
  const guards = createGuards(config, log)
  const { sockets, refusals, refusalPace } = guards
  const http = Fastify({
    // Fastify's own logging would listen to every response. http/problem.ts logs failures.
    logger: false,
    genReqId: createRequestIds(),
    bodyLimit: config.BODY_LIMIT,
    serverFactory: (handle) => createGuardedServer(config, sockets, handle),
    // The limit on headers bounds the URL. Ids and queue names are bounded once they are decoded.
    routerOptions: { maxParamLength: MAX_HEADER_BYTES },
    clientErrorHandler: createClientErrorHandler(refusals),
    frameworkErrors: createFrameworkErrorHandler(guards),
    // During shutdown the listener accepts no more connections, but a request that has arrived is still served.
    return503OnClosing: false,
    // http/clients/graceful-close.ts closes connections, without cutting off responses that are still being written.
    forceCloseConnections: false,
  })
  http.addHook('preClose', async () => {
    refusalPace.close()
    sockets.closeDropped()
  })
  http.addHook('onClose', async () => {
    sockets.close()
    refusals.close()
  })
  return { http, guards }
}

function createGuards(config: Config, log: Logger): HttpGuards {
  const sockets = createClientSockets({ writeTimeoutMs: config.WRITE_TIMEOUT })
  return {
    sockets,
    sendBudget: createSendBudget(sockets, config.MAX_BUFFERED_BYTES),
    refusalPace: createRefusalPace(config.MAX_REFUSALS_PER_SECOND),
    refusals: createRefusals(config.LOG_REQUESTS === 'none' ? undefined : log),
  }
}

function createGuardedServer(config: Config, sockets: ClientSockets, handle: RequestListener): Server {
  const server = createServer(
    {
      requestTimeout: config.REQUEST_TIMEOUT,
      headersTimeout: Math.min(5_000, config.REQUEST_TIMEOUT),
      maxHeaderSize: MAX_HEADER_BYTES,
      // Node checks for timed-out requests every 30 s by default, which would turn a timeout of 5 s into one of 35 s.
      connectionsCheckingInterval: 500,
      // As Fastify sets it.
      keepAliveTimeout: 72_000,
    },
    paceRequests(sockets, config.MAX_PIPELINED_REQUESTS, handle),
  )
  server.maxConnections = config.MAX_CONNECTIONS === 0 ? Number.POSITIVE_INFINITY : config.MAX_CONNECTIONS
  sockets.watch(server)
  return server
}

export interface HttpPluginOptions extends HttpGuards {
  config: Config
  log: Logger
  keyRing: KeyRing
  /** Paces the answers that are large. */
  turns: PacedTurns
  version: string
  /** Whether any route responds with an event stream, which needs the heartbeat timer. */
  usesEventStreams: boolean
}

/** Returns the waits, which need the keys. */
export async function registerHttpPlugins(http: FastifyInstance, options: HttpPluginOptions): Promise<Waits> {
  const {
    config,
    log,
    keyRing,
    turns,
    version,
    usesEventStreams,
    sockets,
    sendBudget,
    refusals,
    refusalPace,
  } = options
  const waits = createWaits({
    sockets,
    isInForce: (access) => isInForce(keyRing, access),
    maxPerConnection: config.MAX_WAITS_PER_CONNECTION,
    maxPerKey: config.MAX_WAITS_PER_KEY,
    max: config.MAX_WAITS,
  })
  http.addHook('onClose', async () => waits.close())
  await http.register(problemPlugin, { refusals, refusalPace })
  await http.register(routeContractPlugin)
  await http.register(requestLoggingPlugin, { log: config.LOG_REQUESTS === 'all' ? log : undefined })
  await http.register(pageHeadersPlugin)
  await http.register(sendBudgetPlugin, { sockets, budget: sendBudget, turns })
  await http.register(hostCheckPlugin, {
    keyRing,
    allowedHosts: config.ALLOWED_HOSTS,
    allowAnonymous: config.ALLOW_ANONYMOUS,
  })
  await http.register(pressurePlugin, { maxEventLoopDelayMs: config.MAX_EVENT_LOOP_DELAY })
  await http.register(authenticationPlugin, { keyRing })
  await http.register(rateLimitPlugin)
  await http.register(waitsPlugin, { waits })
  await http.register(jsonBodyPlugin)
  await http.register(requestValidationPlugin)
  await http.register(openapiPlugin, { version })
  if (usesEventStreams) {
    await http.register(eventStreamPlugin, {
      heartbeatMs: config.SSE_HEARTBEAT,
      maxBufferedBytes: config.SSE_MAX_BUFFERED,
      sockets,
      budget: sendBudget,
      turns,
    })
  }
  await http.register(gracefulClosePlugin)
  return waits
}
