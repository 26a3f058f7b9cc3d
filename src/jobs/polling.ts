/** What a client that polls is told: whether anything changed, and when to ask again. */

/** 1 s, doubling with the age of the job: a job that has run for a minute is not done in the next second. */
const MAX_WAIT_S = 30
/** A job that is due next week may be promoted before; an hour is soon enough to look. */
const MAX_DELAYED_WAIT_S = 3_600

/** Seconds for `Retry-After` while a job is unfinished. `delayedUntilMs` 0: it is not delayed. */
export function retryAfterS(createdAtMs: number, delayedUntilMs: number, nowMs: number): number {
  const untilDueS = Math.ceil((delayedUntilMs - nowMs) / 1000)
  if (untilDueS > 1) return Math.min(untilDueS, MAX_DELAYED_WAIT_S)
  const ageS = (nowMs - createdAtMs) / 1000
  for (let waitS = 1; waitS < MAX_WAIT_S; waitS *= 2) if (ageS < waitS * 2) return waitS
  return MAX_WAIT_S
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
