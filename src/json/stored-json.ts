/**
 * Checks stored text for JSON (RFC 8259) over its bytes, and builds nothing. Anything may be stored, by any producer, so every
 * member name is allowed here; nesting is bounded, so that whatever passes can be parsed and serialised by any client.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { endOfValue } from './json-grammar.ts'
import { skipSpace } from './json-tokens.ts'
import { beginScan, createScan, endScan } from './scan.ts'

/** Deeper values count as text: many parsers, and JSON.stringify, fail on them. */
const DEPTH_MAX = 1_000

export interface StoredJson {
  /** Whether the bytes are one JSON text in UTF-8 of at most 1,000 levels. */
  isJson(bytes: Buffer): boolean
  /**
   * The bytes themselves if they are JSON, else their text as a JSON string. Bytes that are not UTF-8 are read as U+FFFD first,
   * as BullMQ's workers read them.
   */
  asJson(bytes: Buffer): Buffer
}

export function createStoredJson(): StoredJson {
  const scan = createScan()

  function isJson(bytes: Buffer): boolean {
    if (!isAscii(bytes) && !isUtf8(bytes)) return false
    beginScan(scan, bytes)
    scan.isStored = true
    try {
      const end = endOfValue(scan, skipSpace(scan, 0), DEPTH_MAX)
      return skipSpace(scan, end) === bytes.length
    } catch {
      return false
    } finally {
      endScan(scan)
    }
  }

  return {
    isJson,
    asJson(bytes) {
      if (isJson(bytes)) return bytes
      const text = bytes.toString()
      if (!isUtf8(bytes)) {
        const repaired = Buffer.from(text)
        if (isJson(repaired)) return repaired
      }
      return Buffer.from(JSON.stringify(text))
    },
  }
}
