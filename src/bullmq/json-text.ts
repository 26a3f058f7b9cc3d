/** Passes stored JSON values of a job into a response without parsing and serialising them again. */

/** Returns valid JSON: the text itself, or the text as a JSON string if it is not JSON. Takes a few ms for a MiB. */
export function jsonText(text: string): string {
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
