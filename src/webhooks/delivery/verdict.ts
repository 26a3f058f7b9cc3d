/**
 * What a receiver's answer means for the job. It says so with its status alone: 2xx is done, 410 wants no more, and of the
 * rest only those are tried again that RFC 9110 and its kin call temporary. A redirect is a fault of the subscription.
 */
import secureJson from 'secure-json-parse'
import type { DeliveryResult, EndpointResponse } from './webhook-client.ts'

export type Verdict =
  | { kind: 'complete'; result: unknown }
  /** `undefined`: after the job's own backoff. */
  | { kind: 'retry'; reason: string; afterMs: number | undefined }
  | { kind: 'fail'; reason: string }
  | { kind: 'gone'; reason: string }

/** Timeout, too early, too many requests. */
const temporary = new Set([408, 425, 429])

/** `now` in ms since 1970, for a `Retry-After` that is a date. */
export function judge(answer: DeliveryResult, now: number): Verdict {
  if (answer.status === undefined) return { kind: 'retry', reason: answer.reason, afterMs: undefined }
  const { status } = answer
  if (status >= 200 && status < 300) return { kind: 'complete', result: resultOf(answer) }
  const reason = reasonOf(answer)
  if (status === 410) return { kind: 'gone', reason }
  const isFinal = status >= 300 && status < 500 && !temporary.has(status)
  return isFinal
    ? { kind: 'fail', reason }
    : { kind: 'retry', reason, afterMs: waitOf(answer.retryAfter, now) }
}

/** As deep as a body that a client may send to this service. */
const MAX_DEPTH = 64

/** What cannot be kept is no reason to do finished work again. */
function resultOf({ contentType, body }: EndpointResponse): unknown {
  if (body === undefined || !isJson(mediaTypeOf(contentType))) return null
  try {
    const result: unknown = secureJson.parse(body, undefined, {
      protoAction: 'error',
      constructorAction: 'error',
    })
    return isWithinDepth(result, MAX_DEPTH) ? result : null
  } catch {
    return null
  }
}

function isWithinDepth(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return true
  return levels > 0 && Object.values(value).every((inner) => isWithinDepth(inner, levels - 1))
}

function mediaTypeOf(contentType = ''): string {
  return contentType.split(';', 1)[0]!.trim().toLowerCase()
}

function isJson(mediaType: string): boolean {
  return mediaType === 'application/json' || mediaType.endsWith('+json')
}

const QUOTE_MAX = 200

function reasonOf({ status, ms, contentType, body = '' }: EndpointResponse & { ms: number }): string {
  const redirect = status < 400 && status >= 300 ? '; redirects are not followed' : ''
  const said = `answered ${status} in ${ms} ms${redirect}`
  const mediaType = mediaTypeOf(contentType)
  if (!isJson(mediaType) && !mediaType.startsWith('text/')) return said
  const quote = [...body.replace(/[\s\p{Cc}]+/gu, ' ').trim()].slice(0, QUOTE_MAX).join('')
  return quote === '' ? said : `${said}: ${quote}`
}

const DAY_MS = 86_400_000

/** RFC 9110 §10.2.3: seconds, or a date in one of three forms (§5.6.7). From 0 to 24 h; `undefined` for nonsense. */
function waitOf(retryAfter: string | undefined, now: number): number | undefined {
  const text = retryAfter?.trim() ?? ''
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1_000 : dateOf(text) - now
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 0), DAY_MS)
}

const NAMED_ZONE = /^(\w{3}, \d\d \w{3} \d{4}|\w{6,9}, \d\d-\w{3}-\d\d) \d\d:\d\d:\d\d GMT$/
/** As C's asctime() writes it: always UTC, though it does not say so. */
const ASCTIME = /^\w{3} \w{3} [\d ]\d \d\d:\d\d:\d\d \d{4}$/

/** Strict, because `Date.parse` sees a date in almost anything: in `-5` too. */
function dateOf(text: string): number {
  if (NAMED_ZONE.test(text)) return Date.parse(text)
  return ASCTIME.test(text) ? Date.parse(`${text} GMT`) : Number.NaN
}
