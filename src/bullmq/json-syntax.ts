/**
 * Checks stored text for JSON (RFC 8259) without building its value: JSON.parse of a MiB of empty objects takes twenty MiB,
 * and blocks for long. Nesting is bounded, so that whatever passes here can be parsed and serialised by any client.
 */

/** Deeper values count as text: many parsers, and JSON.stringify, fail on them. */
const DEPTH_MAX = 1_000

/** Code units. */
const QUOTE = 0x22
const COMMA = 0x2c
const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
const COLON = 0x3a
const BACKSLASH = 0x5c
const ARRAY = 0x5b
const ARRAY_END = 0x5d
const OBJECT = 0x7b
const OBJECT_END = 0x7d
const UNICODE = 0x75
const ESCAPES = '"\\/bfnrt'

export function isJson(text: string): boolean {
  return jsonShape(text) !== undefined
}

/** The text itself if it is JSON, else the text as a JSON string. A MiB takes a few ms. */
export function jsonText(text: string): string {
  return isJson(text) ? text : JSON.stringify(text)
}

/** `texts`: an array of nothing but strings. `undefined`: the text is not JSON. */
export function jsonShape(text: string): 'texts' | 'other' | undefined {
  /** The end of each open array or object. */
  const ends: number[] = []
  let at = skipSpace(text, 0)
  let isTexts = text.charCodeAt(at) === ARRAY
  for (;;) {
    const start = text.charCodeAt(at)
    if (start === ARRAY || start === OBJECT) {
      if (ends.length > 0) isTexts = false
      if (ends.length === DEPTH_MAX) return undefined
      const end = start === ARRAY ? ARRAY_END : OBJECT_END
      at = skipSpace(text, at + 1)
      if (text.charCodeAt(at) !== end) {
        ends.push(end)
        if (end === OBJECT_END) at = endOfName(text, at)
        if (at < 0) return undefined
        continue
      }
      at++
    } else if (start === QUOTE) {
      at = endOfString(text, at)
    } else {
      isTexts = false
      at = endOfScalar(text, at)
    }
    if (at < 0) return undefined
    // A value has ended. Close what ends with it, up to the start of the next value.
    for (;;) {
      at = skipSpace(text, at)
      const end = ends.at(-1)
      if (end === undefined) return at < text.length ? undefined : isTexts ? 'texts' : 'other'
      const next = text.charCodeAt(at++)
      if (next === COMMA) {
        at = skipSpace(text, at)
        if (end === OBJECT_END) at = endOfName(text, at)
        if (at < 0) return undefined
        break
      }
      if (next !== end) return undefined
      ends.pop()
    }
  }
}

/** The text itself if it is JSON, else the text as a JSON string. `undefined`: that is more than `maxBytes`. */
export function jsonWithin(text: string, maxBytes: number): string | undefined {
  // A UTF-16 unit takes at most three bytes in UTF-8, and six in a JSON string.
  if (text.length > maxBytes) return undefined
  if (isJson(text))
    return text.length * 3 <= maxBytes || Buffer.byteLength(text) <= maxBytes ? text : undefined
  return text.length * 6 + 2 <= maxBytes || jsonStringBytes(text) <= maxBytes
    ? JSON.stringify(text)
    : undefined
}

/** Bytes of `JSON.stringify(text)` in UTF-8, without making it. */
export function jsonStringBytes(text: string): number {
  let bytes = 2
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x20) bytes += '\b\t\n\f\r'.includes(text[i]!) ? 2 : 6
    else if (unit === QUOTE || unit === BACKSLASH) bytes += 2
    else if (unit < 0x80) bytes++
    else if (unit < 0x800) bytes += 2
    else if (unit < 0xd800 || unit > 0xdfff) bytes += 3
    else if (unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      bytes += 4
      i++
    } else bytes += 6
  }
  return bytes
}

function skipSpace(text: string, from: number): number {
  let at = from
  for (; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) break
  }
  return at
}

/** The offset behind a member's name and colon, and the space after them; -1 if there is none. */
function endOfName(text: string, from: number): number {
  if (text.charCodeAt(from) !== QUOTE) return -1
  const end = endOfString(text, from)
  if (end < 0) return -1
  const colon = skipSpace(text, end)
  return text.charCodeAt(colon) === COLON ? skipSpace(text, colon + 1) : -1
}

/** `from` is at the opening quote. */
function endOfString(text: string, from: number): number {
  for (let at = from + 1; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit === QUOTE) return at + 1
    if (unit < 0x20) return -1
    if (unit !== BACKSLASH) continue
    at++
    if (text.charCodeAt(at) === UNICODE) {
      for (let i = 0; i < 4; i++) if (!isHexDigit(text.charCodeAt(++at))) return -1
    } else if (at >= text.length || !ESCAPES.includes(text[at]!)) return -1
  }
  return -1
}

function endOfScalar(text: string, at: number): number {
  for (const word of ['true', 'false', 'null']) if (text.startsWith(word, at)) return at + word.length
  const from = text.charCodeAt(at) === MINUS ? at + 1 : at
  // No digit may follow a leading zero.
  let end = text.charCodeAt(from) === ZERO ? from + 1 : endOfDigits(text, from)
  if (end > 0 && text.charCodeAt(end) === POINT) end = endOfDigits(text, end + 1)
  if (end < 0 || (text.charCodeAt(end) | 0x20) !== 0x65) return end
  const sign = text[end + 1]
  return endOfDigits(text, sign === '+' || sign === '-' ? end + 2 : end + 1)
}

/** At least one digit. */
function endOfDigits(text: string, from: number): number {
  let at = from
  for (let unit = text.charCodeAt(at); unit >= 0x30 && unit <= 0x39; unit = text.charCodeAt(at)) at++
  return at > from ? at : -1
}

function isHexDigit(unit: number): boolean {
  const lower = unit | 0x20
  return (unit >= 0x30 && unit <= 0x39) || (lower >= 0x61 && lower <= 0x66)
}
