/** What a client that polls or waits asks for and is told: whether anything changed, and when to ask again. */
import { MAX_WAIT_S } from './schemas.ts'

/** What a wait ends with. */
export type Until = 'finished' | 'change'

/** 1 s, doubling with the age of the job: a job that has run for a minute is not done in the next second. */
const MAX_RETRY_AFTER_S = 30
/** A job that is due next week may be promoted before; an hour is soon enough to look. */
const MAX_DELAYED_WAIT_S = 3_600

/** Seconds for `Retry-After` while a job is unfinished. `delayedUntilMs` 0: it is not delayed. */
export function retryAfterS(createdAtMs: number, delayedUntilMs: number, nowMs: number): number {
  const untilDueS = Math.ceil((delayedUntilMs - nowMs) / 1000)
  if (untilDueS > 1) return Math.min(untilDueS, MAX_DELAYED_WAIT_S)
  const ageS = (nowMs - createdAtMs) / 1000
  for (let waitS = 1; waitS < MAX_RETRY_AFTER_S; waitS *= 2) if (ageS < waitS * 2) return waitS
  return MAX_RETRY_AFTER_S
}

/** If-None-Match against a strong tag, by the weak comparison that RFC 9110 §13.1.2 asks for. */
export function isNotModified(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false
  if (ifNoneMatch === etag || ifNoneMatch === '*') return true
  return ifNoneMatch.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag)
}

/**
 * `Cache-Control: no-cache` asks Redis, whatever is in memory. But fetch() adds it, and `Pragma: no-cache`, by itself to
 * every request for which its caller set If-None-Match (Fetch standard, HTTP-network-or-cache fetch): such a poll was not
 * meant to read through.
 */
export function wantsReadThrough(headers: Record<string, string | string[] | undefined>): boolean {
  const cacheControl = headers['cache-control']
  if (cacheControl === undefined || !cacheControl.includes('no-cache')) return false
  return headers['if-none-match'] === undefined || headers['pragma'] === undefined
}

/**
 * How long the client would wait, and for what: `?wait=` or `Prefer: wait=N` (RFC 7240 §4.3), which is answered with
 * what was granted. `undefined`: not at all.
 */
export function waitOf(
  request: {
    query: { wait?: number; until?: string }
    headers: Record<string, string | string[] | undefined>
  },
  reply: { header(name: string, value: string): unknown },
): { waitMs: number; until: Until } | undefined {
  const until = request.query.until === 'change' ? 'change' : 'finished'
  const { wait } = request.query
  if (wait !== undefined) return wait === 0 ? undefined : { waitMs: wait * 1000, until }
  const { prefer } = request.headers
  const preferred =
    prefer === undefined ? null : /(?:^|[,;]\s*)wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)/i.exec(`${prefer}`)
  if (!preferred) return undefined
  const seconds = Math.min(Number(preferred[1]), MAX_WAIT_S)
  reply.header('preference-applied', `wait=${seconds}`)
  return seconds === 0 ? undefined : { waitMs: seconds * 1000, until }
}
