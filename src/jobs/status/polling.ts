/** Parses the headers with which clients poll and wait, and computes Retry-After. */
import { MAX_WAIT_S } from './schemas.ts'

/** What ends a wait before its time is up. */
export type Until = 'finished' | 'change'

/** Starts at 1 s and doubles with the age of the job: a job that has run for a minute rarely ends in the next second. */
const MAX_RETRY_AFTER_S = 30
/** A job that is due next week may be promoted earlier, so clients still poll it every hour. */
const MAX_DELAYED_WAIT_S = 3_600

/** `Retry-After` of an unfinished job, seconds. `delayedUntilMs` 0: the job is not delayed. */
export function retryAfterS(createdAtMs: number, delayedUntilMs: number, nowMs: number): number {
  const untilDueS = Math.ceil((delayedUntilMs - nowMs) / 1000)
  if (untilDueS > 1) return Math.min(untilDueS, MAX_DELAYED_WAIT_S)
  const ageS = (nowMs - createdAtMs) / 1000
  for (let waitS = 1; waitS < MAX_RETRY_AFTER_S; waitS *= 2) if (ageS < waitS * 2) return waitS
  return MAX_RETRY_AFTER_S
}

/** Compares If-None-Match with a strong ETag, by the weak comparison that RFC 9110 §13.1.2 requires. */
export function isNotModified(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false
  if (ifNoneMatch === etag || ifNoneMatch === '*') return true
  return ifNoneMatch.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag)
}

/**
 * `Cache-Control: no-cache` bypasses the cache. But fetch() adds it, together with `Pragma: no-cache`, to every request
 * whose caller set If-None-Match (Fetch standard, HTTP-network-or-cache fetch); such a poll must not bypass it.
 */
export function wantsReadThrough(headers: Record<string, string | string[] | undefined>): boolean {
  const cacheControl = headers['cache-control']
  if (cacheControl === undefined || !cacheControl.includes('no-cache')) return false
  return headers['if-none-match'] === undefined || headers['pragma'] === undefined
}

/**
 * How long the client wants to wait, and for what, from `?wait=` or `Prefer: wait=N` (RFC 7240 §4.3); `undefined` if it
 * does not. Sets `Preference-Applied` to the granted wait.
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
