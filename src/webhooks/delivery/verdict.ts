/**
 * Decides what an endpoint's response means for the job, by its status alone: 2xx completes the job, 410
 * pauses the subscription, and statuses that HTTP defines as temporary are retried. Any other status fails
 * the job, even a redirect, which is a configuration error.
 */

import { rawValue } from '../../json/body-shape.ts'
import { createJsonTexts, type JsonTexts } from '../../json/canonical-text.ts'
import { createJsonScanner, type JsonScanner, type RawJson } from '../../json/json-scanner.ts'
import type { DeliveryResult, EndpointResponse } from '../endpoints/webhook-client.ts'

export type Verdict =
  /** `result`: compact JSON text in UTF-8. */
  | { kind: 'complete'; result: Buffer }
  /** `afterMs`: from `Retry-After`; `undefined` uses the job's own backoff. */
  | { kind: 'retry'; reason: string; afterMs: number | undefined }
  | { kind: 'fail'; reason: string }
  /** The delivery could not start, so the job loses no attempt. */
  | { kind: 'postpone'; reason: string }
  | { kind: 'gone'; reason: string }

/** Request timeout, too early, too many requests. */
const TEMPORARY_4XX = new Set([408, 425, 429])

/** `nowMs`: ms since 1970, for a `Retry-After` that is a date. */
export type Judge = (result: DeliveryResult, nowMs: number) => Verdict

/** Levels that a result may be nested: as many as a body that a client sends to this service. */
const MAX_DEPTH = 64

export function createJudge(): Judge {
  // A value that stays text may have one level less than the body.
  const scanner = createJsonScanner({ maxDepth: MAX_DEPTH + 1 })
  const texts = createJsonTexts()
  return (result, nowMs) => judge(result, nowMs, (response) => readResult(response, scanner, texts))
}

function judge(
  result: DeliveryResult,
  nowMs: number,
  resultOf: (response: EndpointResponse) => Buffer,
): Verdict {
  if (result.status === undefined) {
    const { reason, isUnsent } = result
    return isUnsent ? { kind: 'postpone', reason } : { kind: 'retry', reason, afterMs: undefined }
  }
  const { status } = result
  if (status >= 200 && status < 300) return { kind: 'complete', result: resultOf(result) }
  const reason = describeResponse(result)
  if (status === 410) return { kind: 'gone', reason }
  const isFinal = status >= 300 && status < 500 && !TEMPORARY_4XX.has(status)
  return isFinal
    ? { kind: 'fail', reason }
    : { kind: 'retry', reason, afterMs: parseRetryAfter(result.retryAfter, nowMs) }
}

const NULL = Buffer.from('null')

/** `null` for a body that cannot be stored: the work is done, so the job completes anyway. */
function readResult(
  { contentType, body }: EndpointResponse,
  scanner: JsonScanner,
  texts: Pick<JsonTexts, 'compact'>,
): Buffer {
  if (body === undefined || !isJson(mediaTypeOf(contentType))) return NULL
  try {
    return texts.compact(scanner.scan(body, rawValue) as RawJson)
  } catch {
    return NULL
  }
}

function mediaTypeOf(contentType = ''): string {
  return contentType.split(';', 1)[0]!.trim().toLowerCase()
}

function isJson(mediaType: string): boolean {
  return mediaType === 'application/json' || mediaType.endsWith('+json')
}

const MAX_QUOTE_CHARS = 200

/** The status, the time it took and the start of a textual body, on one line. */
function describeResponse({ status, ms, contentType, body }: EndpointResponse & { ms: number }): string {
  const redirect = status < 400 && status >= 300 ? '; redirects are not followed' : ''
  const summary = `answered ${status} in ${ms} ms${redirect}`
  const mediaType = mediaTypeOf(contentType)
  if (!isJson(mediaType) && !mediaType.startsWith('text/')) return summary
  const text = body?.toString() ?? ''
  const quote = [...text.replace(/[\s\p{Cc}]+/gu, ' ').trim()].slice(0, MAX_QUOTE_CHARS).join('')
  return quote === '' ? summary : `${summary}: ${quote}`
}

const DAY_MS = 86_400_000

/**
 * Milliseconds from now, 0 to 24 h; `undefined` for an invalid value. RFC 9110 §10.2.3 allows seconds or a
 * date, the date in one of three forms (§5.6.7).
 */
function parseRetryAfter(retryAfter: string | undefined, nowMs: number): number | undefined {
  const text = retryAfter?.trim() ?? ''
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1_000 : parseHttpDate(text) - nowMs
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 0), DAY_MS)
}

const IMF_OR_RFC_850 = /^(\w{3}, \d\d \w{3} \d{4}|\w{6,9}, \d\d-\w{3}-\d\d) \d\d:\d\d:\d\d GMT$/
/** The format of C's asctime(): always UTC, though it names no zone. */
const ASCTIME = /^\w{3} \w{3} [\d ]\d \d\d:\d\d:\d\d \d{4}$/

/**
 * Ms since 1970, or NaN. The form is checked first because `Date.parse` accepts almost any text, even `-5`.
 */
function parseHttpDate(text: string): number {
  if (IMF_OR_RFC_850.test(text)) return Date.parse(text)
  return ASCTIME.test(text) ? Date.parse(`${text} GMT`) : Number.NaN
}
