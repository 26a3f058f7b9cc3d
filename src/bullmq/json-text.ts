/** Values of a job's hash that are only passed on: their text goes into an answer as it is. */

/** Up to here a text is looked at whether it is JSON; BullMQ, in every language, writes nothing else. */
const LOOKED_AT = 65_536

/** The text itself; as a string of JSON where it is none. */
export function jsonText(text: string): string {
  if (text.length > LOOKED_AT) return text
  try {
    JSON.parse(text)
    return text
  } catch {
    return JSON.stringify(text)
  }
}

/** Parses a field that BullMQ writes as JSON; returns the text itself where something else wrote it. */
export function parseJsonText(text: string | undefined): unknown {
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
