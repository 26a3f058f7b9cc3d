/**
 * One POST of one delivery, and what came of it. The deadline covers all of it, from the name's lookup to the last byte of
 * the answer: a receiver that dribbles holds a place for that long and no longer. Redirects are not followed, and nothing is
 * sent twice: after a broken connection nobody knows whether the receiver has acted, and the job's attempts are counted.
 */
import { isUtf8 } from 'node:buffer'
import type { Dispatcher } from 'undici'
import { type AddressGuard, ForbiddenUrlError } from './address-guard.ts'
import { type Connection, createConnections } from './receiver-connections.ts'

export interface Sender {
  /** Never rejects. */
  send(delivery: Delivery): Promise<Answer>
  /** Ends those on their way as well. */
  close(): Promise<void>
}

export interface Delivery {
  url: string
  headers: Record<string, string>
  body: string
  timeoutMs: number
}

export type Answer = (Reply | NoReply) & { ms: number }

export interface Reply {
  status: number
  retryAfter: string | undefined
  contentType: string | undefined
  /** `undefined` when it was longer than `maxResponseBytes`, or is not UTF-8. Never decompressed. */
  body: string | undefined
  /** Longer than `maxResponseBytes`: the rest was not read. */
  isCut: boolean
}

export interface NoReply {
  status: undefined
  /** Short, for people; without headers, secrets, or what a name leads to. */
  reason: string
}

export interface SenderOptions {
  guard: AddressGuard
  maxResponseBytes: number
}

export function createSender({ guard, maxResponseBytes }: SenderOptions): Sender {
  const connections = createConnections(guard)
  let closing: Promise<void> | undefined

  async function exchange(delivery: Delivery): Promise<Reply> {
    // Each time: the guard's lookup is not asked about hosts that are addresses.
    const url = guard.parse(delivery.url)
    const connection = connections.take(url.origin)
    let reply: Reply | undefined
    try {
      reply = await before(delivery.timeoutMs, post(connection, url, delivery))
      return reply
    } finally {
      await (reply && !reply.isCut ? connections.rest(connection) : connection.end())
    }
  }

  async function post({ client }: Connection, url: URL, { headers, body }: Delivery): Promise<Reply> {
    const path = `${url.pathname}${url.search}`
    const response = await client.request({ method: 'POST', path, headers, body })
    const { 'retry-after': retryAfter, 'content-type': contentType } = response.headers
    return {
      status: response.statusCode,
      retryAfter: first(retryAfter),
      contentType: first(contentType),
      ...(await read(response.body, maxResponseBytes)),
    }
  }

  return {
    async send(delivery) {
      const startedAt = performance.now()
      const elapsedMs = () => Math.round(performance.now() - startedAt)
      try {
        if (closing) throw new StoppingError()
        const reply = await exchange(delivery)
        return { ...reply, ms: elapsedMs() }
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

async function before<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new DeadlineError(`no answer in ${timeoutMs} ms`)), timeoutMs)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

async function read(
  stream: Dispatcher.ResponseData['body'],
  maxBytes: number,
): Promise<Pick<Reply, 'body' | 'isCut'>> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of stream) {
    bytes += chunk.length
    if (bytes > maxBytes) return { body: undefined, isCut: true }
    chunks.push(chunk)
  }
  const whole = Buffer.concat(chunks)
  return { body: isUtf8(whole) ? whole.toString() : undefined, isCut: false }
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
