/**
 * Sends one delivery as one POST. A single deadline covers everything from the name lookup to the last byte
 * of the response, so a slow endpoint occupies a slot for that long at most. Redirects are not followed and
 * nothing is resent: after a broken connection the endpoint may have acted already, and a retry has to count
 * as an attempt of the job.
 */
import { isUtf8 } from 'node:buffer'
import { LRUCache } from 'lru-cache'
import { type AddressGuard, UnresolvedNameError } from './address-guard.ts'
import { DeadlineError, describeError, StoppingError } from './delivery-errors.ts'
import { createEndpointConnections, type EndpointConnection } from './endpoint-connections.ts'
import { limitResponse, type ResponseLimits } from './response-limits.ts'

export interface WebhookClient {
  /** Never rejects. */
  send(delivery: DeliveryRequest): Promise<DeliveryResult>
  /** Closes all connections; deliveries in flight resolve without a response. */
  close(): Promise<void>
}

export interface DeliveryRequest {
  url: string
  headers: Record<string, string>
  body: string | Buffer
  /** For the whole delivery, ms. */
  timeoutMs: number
}

/** `ms`: how long the delivery took. */
export type DeliveryResult = (EndpointResponse | NoResponse) & { ms: number }

export interface EndpointResponse {
  status: number
  retryAfter: string | undefined
  contentType: string | undefined
  /** `undefined` when it is longer than `maxResponseBytes` or not UTF-8. Never decompressed. */
  body: Buffer | undefined
  /** True when the body is longer than `maxResponseBytes`; the rest was not read. */
  isCut: boolean
}

export interface NoResponse {
  status: undefined
  /** A short reason for people. It contains no headers, no secrets and no resolved addresses. */
  reason: string
  /** True when the delivery could not start, so that the endpoint has received nothing. */
  isUnsent: boolean
}

export interface WebhookClientOptions {
  guard: AddressGuard
  maxResponseBytes: number
}

interface Target {
  origin: string
  path: string
}

const MAX_CACHED_TARGETS = 1_000

export function createWebhookClient({ guard, maxResponseBytes }: WebhookClientOptions): WebhookClient {
  const connections = createEndpointConnections(guard)
  const targets = new LRUCache<string, Target>({ max: MAX_CACHED_TARGETS })
  let closing: Promise<void> | undefined

  /**
   * IP addresses are checked here, once per URL, as the result cannot change. Names are checked in the
   * guard's lookup.
   */
  function parseTarget(url: string): Target {
    const known = targets.get(url)
    if (known) return known
    const { origin, pathname, search } = guard.parse(url)
    const target = { origin, path: `${pathname}${search}` }
    targets.set(url, target)
    return target
  }

  async function exchange(delivery: DeliveryRequest): Promise<EndpointResponse> {
    const { origin, path } = parseTarget(delivery.url)
    const connection = connections.take(origin)
    let response: EndpointResponse | undefined
    try {
      response = await post(connection, path, delivery, maxResponseBytes)
      return response
    } catch (error) {
      const hostname = () => new URL(origin).hostname
      throw connection.isResolving() && error instanceof DeadlineError
        ? new UnresolvedNameError(hostname())
        : error
    } finally {
      await (response && !response.isCut ? connections.release(connection) : connection.end())
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
        const reason = describeError(closing ? new StoppingError() : (error as Error))
        return { status: undefined, reason, isUnsent: error instanceof UnresolvedNameError, ms: elapsedMs() }
      }
    },
    close() {
      closing ??= connections.close()
      return closing
    },
  }
}

/**
 * Uses undici's `dispatch`: its `request()` creates a stream for every response, a third of the cost of a
 * delivery. Callbacks after the deadline have no effect, and the caller closes the connection when the
 * promise rejects.
 */
function post(
  { client, socket }: EndpointConnection,
  path: string,
  delivery: DeliveryRequest,
  maxBytes: number,
): Promise<EndpointResponse> {
  const { headers, body, timeoutMs } = delivery
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(
      () => fail(new DeadlineError(`no response within ${timeoutMs} ms`)),
      timeoutMs,
    )
    const chunks: Buffer[] = []
    let bytes = 0
    let status = 0
    let retryAfter: string | undefined
    let contentType: string | undefined
    let limits: ResponseLimits | undefined
    const end = () => {
      clearTimeout(deadline)
      limits?.stop()
    }
    const finish = (whole: Buffer | undefined, isCut: boolean) => {
      end()
      resolve({ status, retryAfter, contentType, body: whole, isCut })
    }
    const fail = (error: Error) => {
      end()
      reject(error)
    }
    client.dispatch(
      { method: 'POST', path, headers, body },
      {
        onRequestStart(controller) {
          limits = limitResponse(socket()!, (error) => controller.abort(error))
        },
        // Called for informational (1xx) responses too; the last call is the final response.
        onResponseStart(_controller, code, received) {
          if (code < 200) limits?.countInformational()
          status = code
          retryAfter = firstValue(received['retry-after'])
          contentType = firstValue(received['content-type'])
        },
        onResponseData(_controller, chunk) {
          bytes += chunk.length
          limits?.countBody(chunk.length)
          if (bytes > maxBytes) finish(undefined, true)
          else chunks.push(chunk)
        },
        onResponseEnd() {
          // A copy: a chunk would keep all that came with it in memory until the job is settled.
          const whole = Buffer.concat(chunks, bytes)
          finish(isUtf8(whole) ? whole : undefined, false)
        },
        onResponseError: (_controller, error) => fail(error),
      },
    )
  })
}

function firstValue(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}
