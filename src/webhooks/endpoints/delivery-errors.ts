/** Why a delivery has no response, in a few words for people: without headers, secrets and resolved addresses. */
import { ForbiddenUrlError, UnresolvedNameError } from './address-guard.ts'
import { ExcessiveResponseError } from './response-limits.ts'

export class StoppingError extends Error {
  override message = 'the service is stopping'
}

export class DeadlineError extends Error {}

const CLOSED = 'the connection was closed before the response was complete'
const NO_ROUTE = 'there is no route to the endpoint'
const INVALID_HTTP = 'the response is not valid HTTP'
const UNSENDABLE = 'the URL or a header cannot be sent over HTTP'

/** Fixed texts by error code: some messages of undici and Node quote the request. */
const reasons: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: CLOSED,
  EPIPE: CLOSED,
  UND_ERR_SOCKET: CLOSED,
  EHOSTUNREACH: NO_ROUTE,
  ENETUNREACH: NO_ROUTE,
  EADDRNOTAVAIL: NO_ROUTE,
  ETIMEDOUT: 'the endpoint does not accept the connection',
  UND_ERR_HEADERS_OVERFLOW: 'the response headers are too large',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: INVALID_HTTP,
  HTTPParserError: INVALID_HTTP,
  UND_ERR_INVALID_ARG: UNSENDABLE,
  UND_ERR_NOT_SUPPORTED: UNSENDABLE,
  UND_ERR_REQ_CONTENT_LENGTH_MISMATCH: UNSENDABLE,
}

/** Errors of this service, whose messages are written for people. */
const ownErrors = [
  ForbiddenUrlError,
  UnresolvedNameError,
  ExcessiveResponseError,
  DeadlineError,
  StoppingError,
]

const TLS_CODE =
  /^(ERR_SSL|ERR_TLS|EPROTO$|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_)/

export function describeError(error: NodeJS.ErrnoException): string {
  if (ownErrors.some((kind) => error instanceof kind)) return error.message
  const code = error.code ?? error.name
  return reasons[code] ?? (TLS_CODE.test(code) ? `TLS failed (${code})` : `the request failed (${code})`)
}
