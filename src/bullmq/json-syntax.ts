/** Stored text as JSON text, for callers that have it as a string; src/json/stored-json.ts has the rules. */
import { createStoredJson } from '../json/stored-json.ts'

const { isJson } = createStoredJson()

/** The text itself if it is JSON, else the text as a JSON string. */
export function jsonText(text: string): string {
  return isJson(Buffer.from(text)) ? text : JSON.stringify(text)
}
