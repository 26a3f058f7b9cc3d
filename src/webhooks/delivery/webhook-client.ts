/**
 * One POST of one delivery, and what came of it. The deadline covers all of it, from the name's lookup to the last byte of
 * the answer: a receiver that dribbles holds a place for that long and no longer. Redirects are not followed, and nothing is
 * sent twice: after a broken connection nobody knows whether the receiver has acted, and the job's attempts are counted.
 */
import { isUtf8 } from 'node:buffer'
import { LRUCache } from 'lru-cache'
import { type AddressGuard, ForbiddenUrlError } from './address-guard.ts'
import { createEndpointConnections, type EndpointConnection } from './endpoint-connections.ts'

export interface WebhookClient {
  /** Never rejects. */
  send(delivery: DeliveryRequest): Promise<DeliveryResult>
  /** Ends those on their way as well. */
  close(): Promise<void>
}

export interface DeliveryRequest {
  url: string
  headers: Record<string, string>
  body: string
  timeoutMs: number
}

export type DeliveryResult = (EndpointResponse | NoResponse) & { ms: number }

export interface EndpointResponse {
  status: number
  retryAfter: string | undefined
  contentType: string | undefined
  /** `undefined` when it was longer than `maxResponseBytes`, or is not UTF-8. Never decompressed. */
  body: string | undefined
  /** Longer than `maxResponseBytes`: the rest was not read. */
  isCut: boolean
}

export interface NoResponse {
  status: undefined
  /** Short, for people; without headers, secrets, or what a name leads to. */
  reason: string
}

export interface WebhookClientOptions {
  guard: AddressGuard
  maxResponseBytes: number
}

interface Route {
  origin: string
  path: string
}

const MAX_ROUTES = 1_000

export function createWebhookClient({ guard, maxResponseBytes }: WebhookClientOptions): WebhookClient {
  const connections = createEndpointConnections(guard)
  const routes = new LRUCache<string, Route>({ max: MAX_ROUTES })
  let closing: Promise<void> | undefined

  /** An address is judged here, once: nothing of that can change. A name is, with each connection, in the guard's lookup. */
  function routeOf(text: string): Route {
    const known = routes.get(text)
    if (known) return known
    const { origin, pathname, search } = guard.parse(text)
    const route = { origin, path: `${pathname}${search}` }
    routes.set(text, route)
    return route
  }

  async function exchange(delivery: DeliveryRequest): Promise<EndpointResponse> {
    const { origin, path } = routeOf(delivery.url)
    const connection = connections.take(origin)
    let reply: EndpointResponse | undefined
    try {
      reply = await post(connection, path, delivery, maxResponseBytes)
      return reply
    } finally {
      await (reply && !reply.isCut ? connections.rest(connection) : connection.end())
    }
  }

  return {
    async send(delivery) {
      const startedAt = performance.now()
      const elapsedMs = () => Math.round(performance.now() - startedAt)
      try {
        if (closing) throw new StoppingError()
        const { status, retryAfter, contentType, body, isCut } = await exchange(delivery)
        return { status, retryAfter, contentType, body, isCut, ms: elapsedMs() }
      } catch (error) {
        const reason = reasonOf(closing ? new StoppingError() : (error as Error))
        return { status: undefined, reason, ms: elapsedMs() }
      }
    },
    close() {
      closing ??= connections.close()
      return closing
    },
  }
}

class StoppingError extends Error {
  override message = 'the service is stopping'
}

class DeadlineError extends Error {}

/**
 * By undici's dispatch: its request() makes a stream of every answer, of which there is no need here: a third of what
 * a delivery costs. What comes after the deadline comes to nobody: whoever is told of it ends the connection.
 */
function post(
  { client }: EndpointConnection,
  path: string,
  delivery: DeliveryRequest,
  maxBytes: number,
): Promise<EndpointResponse> {
  const { headers, body, timeoutMs } = delivery
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new DeadlineError(`no answer in ${timeoutMs} ms`)), timeoutMs)
    const chunks: Buffer[] = []
    let bytes = 0
    let status = 0
    let retryAfter: string | undefined
    let contentType: string | undefined
    const end = (text: string | undefined, isCut: boolean) => {
      clearTimeout(late)
      resolve({ status, retryAfter, contentType, body: text, isCut })
    }
    client.dispatch(
      { method: 'POST', path, headers, body },
      {
        // Without it, undici takes the handler for one of another kind.
        onRequestStart() {},
        // Of informational answers as well: the last one counts.
        onResponseStart(_controller, code, received) {
          status = code
          retryAfter = first(received['retry-after'])
          contentType = first(received['content-type'])
        },
        onResponseData(_controller, chunk) {
          bytes += chunk.length
          if (bytes > maxBytes) end(undefined, true)
          else chunks.push(chunk)
        },
        onResponseEnd() {
          const whole = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
          end(isUtf8(whole) ? whole.toString() : undefined, false)
        },
        onResponseError(_controller, error) {
          clearTimeout(late)
          reject(error)
        },
      },
    )
  })
}

function first(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}

const closed = 'the connection was closed before the answer was complete'
const noRoute = 'there is no route to the receiver'
const noName = 'the name cannot be resolved'
const notHttp = 'the answer is not valid HTTP'
const unsendable = 'the URL or a header cannot be sent over HTTP'

/** Messages are not repeated, as some of them quote what was sent. */
const reasons: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: closed,
  EPIPE: closed,
  UND_ERR_SOCKET: closed,
  ENOTFOUND: noName,
  EAI_AGAIN: noName,
  EHOSTUNREACH: noRoute,
  ENETUNREACH: noRoute,
  EADDRNOTAVAIL: noRoute,
  ETIMEDOUT: 'the receiver does not answer to a connection',
  UND_ERR_HEADERS_OVERFLOW: 'the headers of the answer are too large',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: notHttp,
  HTTPParserError: notHttp,
  UND_ERR_INVALID_ARG: unsendable,
  UND_ERR_NOT_SUPPORTED: unsendable,
  UND_ERR_REQ_CONTENT_LENGTH_MISMATCH: unsendable,
}

/** Ours: their messages are for people. */
const spoken = [ForbiddenUrlError, DeadlineError, StoppingError]

const TLS_CODE =
  /^(ERR_SSL|ERR_TLS|EPROTO$|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_)/

function reasonOf(error: NodeJS.ErrnoException): string {
  if (spoken.some((kind) => error instanceof kind)) return error.message
  const code = error.code ?? error.name
  return reasons[code] ?? (TLS_CODE.test(code) ? `TLS failed (${code})` : `the request failed (${code})`)
}
