/** Another parser with the same rules, for comparison: JSON.parse, a library that refuses forbidden keys, and a count of brackets. */
import secureJson from 'secure-json-parse'
import { SluiceError } from '../../src/errors.ts'

const MAX_DEPTH = 64

/** Throws EMPTY_BODY, INVALID_JSON, JSON_TOO_DEEP or FORBIDDEN_KEY. */
export function parseJson(text: string): unknown {
  if (text.length === 0) throw new SluiceError('EMPTY_BODY')
  // Every bracket must be closed, so a shorter text cannot be too deep.
  if (text.length > 2 * MAX_DEPTH && isTooDeep(text)) throw new SluiceError('JSON_TOO_DEEP')
  try {
    return secureJson.parse(text, undefined, { protoAction: 'error', constructorAction: 'error' })
  } catch (error) {
    const { message } = error as Error
    if (message.includes('forbidden prototype property')) throw new SluiceError('FORBIDDEN_KEY')
    throw new SluiceError('INVALID_JSON', { detail: `${message}. Send one JSON value in UTF-8.` })
  }
}

const QUOTE = 0x22
const BACKSLASH = 0x5c

function isTooDeep(text: string): boolean {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i)
    if (char === QUOTE) i = endOfString(text, i)
    else if (char === 0x7b || char === 0x5b) {
      if (++depth > MAX_DEPTH) return true
    } else if (char === 0x7d || char === 0x5d) depth--
  }
  return false
}

/** The index of the quote that closes the string starting at `start`, or the length of the text. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === BACKSLASH) escapes++
    if (escapes % 2 === 0) return end
  }
  return text.length
}
