/** Times as clients see them: RFC 3339 with milliseconds, UTC. */

/** The time as RFC 3339 with milliseconds, UTC. */
export const rfc3339 = createRfc3339()

/** Reuses the last text: jobs that arrive together share a millisecond. */
function createRfc3339(): (ms: number) => string {
  let lastMs = Number.NaN
  let lastText = ''
  return (ms) => {
    if (ms !== lastMs) {
      lastText = new Date(ms).toISOString()
      lastMs = ms
    }
    return lastText
  }
}

/** The years 0 to 9999, which RFC 3339 can express; BullMQ accepts any number, and text. */
const MIN_TIME_MS = -62_167_219_200_000
const MAX_TIME_MS = 253_402_300_799_999

/** `null`: RFC 3339 cannot express the time. */
export function timeWithin(ms: number): string | null {
  return ms >= MIN_TIME_MS && ms <= MAX_TIME_MS ? rfc3339(ms) : null
}
