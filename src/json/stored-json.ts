/**
 * Checks stored text for JSON (RFC 8259) over its bytes, and builds nothing. Anything may be stored, by any producer, so every
 * member name is allowed here; nesting is bounded, so that whatever passes can be parsed and serialised by any client.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { endOfValue } from './json-grammar.ts'
import { jsonStringBytes } from './json-string.ts'
import { endOfString, skipSpace } from './json-tokens.ts'
import { beginScan, createScan, endScan, type Scan } from './scan.ts'

/** Deeper values count as text: many parsers, and JSON.stringify, fail on them. */
export const STORED_DEPTH_MAX = 1_000

export interface StoredJson {
  /** Whether the bytes are one JSON text in UTF-8 of at most 1,000 levels. */
  isJson(bytes: Buffer): boolean
  /** Whether they are JSON, and an array of nothing but strings. */
  isTexts(bytes: Buffer): boolean
  /**
   * The bytes themselves if they are JSON, else their text as a JSON string. Bytes that are not UTF-8 are read as U+FFFD first,
   * as BullMQ's workers read them.
   */
  asJson(bytes: Buffer): Buffer
  /** As `asJson`. `undefined`: that is more than `maxBytes`, and is not made. */
  jsonWithin(bytes: Buffer, maxBytes: number): Buffer | undefined
}

export function createStoredJson(): StoredJson {
  const scan = createScan()

  /** `endOf` returns the offset behind the value that starts at `from`; negative if it is none of its kind. */
  function matches(bytes: Buffer, endOf: (scan: Scan, from: number) => number): boolean {
    if (!isAscii(bytes) && !isUtf8(bytes)) return false
    beginScan(scan, bytes)
    scan.isStored = true
    try {
      const end = endOf(scan, skipSpace(scan, 0))
      return end >= 0 && skipSpace(scan, end) === bytes.length
    } catch {
      return false
    } finally {
      endScan(scan)
    }
  }

  const isJson = (bytes: Buffer) => matches(bytes, endOfStored)

  function jsonWithin(bytes: Buffer, maxBytes: number): Buffer | undefined {
    if (bytes.length > maxBytes) return undefined
    if (isJson(bytes)) return bytes
    const text = bytes.toString()
    if (!isUtf8(bytes)) {
      const repaired = Buffer.from(text)
      if (isJson(repaired)) return repaired.length > maxBytes ? undefined : repaired
    }
    const isWithin = bytes.length * ESCAPED_BYTES + 2 <= maxBytes || jsonStringBytes(text) <= maxBytes
    return isWithin ? Buffer.from(JSON.stringify(text)) : undefined
  }

  return {
    isJson,
    isTexts: (bytes) => matches(bytes, endOfTexts),
    asJson: (bytes) => jsonWithin(bytes, Number.POSITIVE_INFINITY)!,
    jsonWithin,
  }
}

/** The most bytes that one byte takes in a JSON string: `\u0000`. */
const ESCAPED_BYTES = 6
const NOT_TEXTS = -1
const QUOTE = 0x22
const COMMA = 0x2c
const ARRAY = 0x5b
const ARRAY_END = 0x5d

function endOfStored(scan: Scan, from: number): number {
  return endOfValue(scan, from, STORED_DEPTH_MAX)
}

/** The offset behind the array of strings that starts at `from`; negative if there is none. */
function endOfTexts(scan: Scan, from: number): number {
  const { bytes } = scan
  if (bytes[from] !== ARRAY) return NOT_TEXTS
  let at = skipSpace(scan, from + 1)
  if (bytes[at] === ARRAY_END) return at + 1
  while (bytes[at] === QUOTE) {
    at = skipSpace(scan, endOfString(scan, at + 1))
    if (bytes[at] === ARRAY_END) return at + 1
    if (bytes[at] !== COMMA) return NOT_TEXTS
    at = skipSpace(scan, at + 1)
  }
  return NOT_TEXTS
}
