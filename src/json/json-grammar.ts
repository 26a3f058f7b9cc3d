/**
 * The grammar of JSON (RFC 8259) over bytes: finds where a value ends and builds nothing. A fault of the grammar throws;
 * depth and forbidden keys (`__proto__`, and `prototype` inside `constructor`) are reported to the scan, which may go on.
 */
import { SluiceError } from '../errors.ts'
import { describeSyntax, type SyntaxFault } from './json-faults.ts'

/** The state of the scan of one text. A scanner reuses it, so that a small body allocates almost nothing. */
export interface Scan {
  bytes: Buffer
  length: number
  /** For each open container, the kind of the one around it. */
  stack: Uint8Array
  /** The bytes as words, made for the first long string. `wordsAt`: the offset of the first. */
  words: Int32Array | undefined
  wordsAt: number
  /** White space between tokens, in bytes. */
  spaces: number
  /** The last offset of an escape in a string. */
  escapeAt: number
  /** The offset behind the last member name that was read, without its quote. */
  nameEnd: number
  /** The start of the value of the last member named `constructor`. */
  constructorAt: number
  /** True: the first fault is kept in `fault`, and the scan goes on. False: a fault throws. */
  isTolerant: boolean
  fault: ScanFault | undefined
  faultAt: number
}

export type ScanFault = 'JSON_TOO_DEEP' | 'FORBIDDEN_KEY'

const noBytes = Buffer.alloc(0)
const STACK_LEVELS = 1_024

export function createScan(): Scan {
  return {
    bytes: noBytes,
    length: 0,
    stack: new Uint8Array(STACK_LEVELS),
    words: undefined,
    wordsAt: 0,
    spaces: 0,
    escapeAt: -1,
    nameEnd: -1,
    constructorAt: -1,
    isTolerant: false,
    fault: undefined,
    faultAt: -1,
  }
}

export function beginScan(scan: Scan, bytes: Buffer): void {
  scan.bytes = bytes
  scan.length = bytes.length
  scan.spaces = 0
  scan.escapeAt = -1
  scan.nameEnd = -1
  scan.constructorAt = -1
  scan.isTolerant = false
  scan.fault = undefined
}

/** Lets go of the text, and of a stack that had to grow. */
export function endScan(scan: Scan): void {
  scan.bytes = noBytes
  scan.words = undefined
  if (scan.stack.length > STACK_LEVELS) scan.stack = new Uint8Array(STACK_LEVELS)
}

export const QUOTE = 0x22
export const COMMA = 0x2c
export const COLON = 0x3a
export const ARRAY = 0x5b
export const ARRAY_END = 0x5d
export const OBJECT = 0x7b
export const OBJECT_END = 0x7d
const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
const BACKSLASH = 0x5c
const UNICODE = 0x75
/** The kind of an object that is the value of `constructor`: OBJECT_END, marked. */
const CONSTRUCTOR = 0x80 | OBJECT_END
/** Bytes of the longest spelling of an ASCII character in a string: an escape with `u`. */
const ESCAPE_BYTES = 6
/** The distance from an opening bracket to its closing one. */
const TO_END = 2

/** 1 for a byte that cannot be inside a string as it is. */
const endsRun = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte < 0x20 || byte === QUOTE || byte === BACKSLASH ? 1 : 0,
)
const isEscape = Uint8Array.from({ length: 256 }, (_, byte) =>
  '"\\/bfnrt'.includes(String.fromCharCode(byte)) ? 1 : 0,
)
const isHex = Uint8Array.from({ length: 256 }, (_, byte) =>
  /[0-9A-Fa-f]/.test(String.fromCharCode(byte)) ? 1 : 0,
)

/**
 * The offset behind the value that starts at `from`. `levels`: how many containers may be nested. Throws INVALID_JSON, and
 * unless the scan is tolerant JSON_TOO_DEEP and FORBIDDEN_KEY.
 */
export function endOfValue(scan: Scan, from: number, levels: number): number {
  const { bytes, length } = scan
  let { stack } = scan
  let at = from
  let depth = 0
  /** The closing bracket of the innermost container; 0 outside. */
  let kind = 0
  for (;;) {
    const first = at < length ? bytes[at]! : 0
    if (first === QUOTE) at = endOfString(scan, at + 1)
    else if (first === OBJECT || first === ARRAY) {
      if (depth === levels) refuse(scan, 'JSON_TOO_DEEP', at)
      if (depth === stack.length) stack = growStack(scan)
      stack[depth++] = kind
      kind = at === scan.constructorAt && first === OBJECT ? CONSTRUCTOR : first + TO_END
      at = skipSpace(scan, at + 1)
      if (at < length && bytes[at] === first + TO_END) {
        kind = stack[--depth]!
        at++
      } else {
        if (first === OBJECT) at = endOfName(scan, at, kind === CONSTRUCTOR)
        continue
      }
    } else at = endOfScalar(scan, at, first)
    // A value has ended. Close the containers that end with it, up to the start of the next value.
    for (;;) {
      if (depth === 0) return at
      at = skipSpace(scan, at)
      const next = at < length ? bytes[at]! : 0
      if (next === COMMA) {
        at = skipSpace(scan, at + 1)
        if (kind !== ARRAY_END) at = endOfName(scan, at, kind === CONSTRUCTOR)
        break
      }
      if (next !== (kind & 0x7f)) throw syntaxError(scan, at, kind === ARRAY_END ? 'item end' : 'member end')
      kind = stack[--depth]!
      at++
    }
  }
}

/** Reports a fault other than one of the grammar. */
export function refuse(scan: Scan, fault: ScanFault, at: number): void {
  if (!scan.isTolerant) throw new SluiceError(fault)
  if (scan.fault !== undefined) return
  scan.fault = fault
  scan.faultAt = at
}

function growStack(scan: Scan): Uint8Array {
  const stack = new Uint8Array(scan.stack.length * 2)
  stack.set(scan.stack)
  scan.stack = stack
  return stack
}

export function skipSpace(scan: Scan, from: number): number {
  const { bytes, length } = scan
  if (from >= length || bytes[from]! > 0x20) return from
  let at = from
  for (; at < length; at++) {
    const byte = bytes[at]!
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
  }
  scan.spaces += at - from
  return at
}

/**
 * The start of the value of the member whose name starts at `from`. `isConstructor`: the object is the value of
 * `constructor`.
 */
export function endOfName(scan: Scan, from: number, isConstructor: boolean): number {
  const { bytes, length } = scan
  if (from >= length || bytes[from] !== QUOTE) throw syntaxError(scan, from, 'name')
  let at = endOfString(scan, from + 1)
  const nameEnd = at - 1
  scan.nameEnd = nameEnd
  at = skipSpace(scan, at)
  if (at >= length || bytes[at] !== COLON) throw syntaxError(scan, at, 'colon')
  at = skipSpace(scan, at + 1)
  const size = nameEnd - from - 1
  if (size === 9 || size === 11 || scan.escapeAt > from) checkName(scan, from + 1, isConstructor, at)
  return at
}

/** The member name that starts at `from` and was the last one read. */
export function nameAt(scan: Scan, from: number): string {
  const { bytes, nameEnd, escapeAt } = scan
  if (escapeAt < from) return bytes.toString('utf8', from, nameEnd)
  return JSON.parse(bytes.toString('utf8', from - 1, nameEnd + 1)) as string
}

/** Whether the member name that starts at `from` and was the last one read is `name`, in any spelling. */
export function isName(scan: Scan, from: number, name: string): boolean {
  const { bytes, nameEnd, escapeAt } = scan
  if (escapeAt >= from) return nameEnd - from <= name.length * ESCAPE_BYTES && nameAt(scan, from) === name
  if (nameEnd - from !== name.length) return false
  for (let i = 0; i < name.length; i++) if (bytes[from + i] !== name.charCodeAt(i)) return false
  return true
}

function checkName(scan: Scan, from: number, isConstructor: boolean, valueAt: number): void {
  if (isName(scan, from, '__proto__') || (isConstructor && isName(scan, from, 'prototype')))
    refuse(scan, 'FORBIDDEN_KEY', from - 1)
  else if (isName(scan, from, 'constructor')) scan.constructorAt = valueAt
}

/** Bytes that are looked at one by one before the search by words starts. */
const SHORT_RUN = 32

/** The offset behind the closing quote of the string whose first character is at `from`. */
export function endOfString(scan: Scan, from: number): number {
  const { bytes, length } = scan
  let at = from
  for (;;) {
    const shortEnd = Math.min(at + SHORT_RUN, length)
    while (at < shortEnd && endsRun[bytes[at]!] === 0) at++
    if (at === shortEnd) at = endOfRun(scan, at)
    const byte = at < length ? bytes[at]! : 0
    if (byte === QUOTE) return at + 1
    if (byte !== BACKSLASH) throw syntaxError(scan, at, 'string')
    scan.escapeAt = at
    const escape = at + 1 < length ? bytes[at + 1]! : 0
    if (escape === UNICODE) {
      if (
        at + 5 >= length ||
        (isHex[bytes[at + 2]!]! & isHex[bytes[at + 3]!]! & isHex[bytes[at + 4]!]! & isHex[bytes[at + 5]!]!) === 0
      )
        throw syntaxError(scan, at, 'unicode escape')
      at += 6
    } else {
      if (isEscape[escape] === 0) throw syntaxError(scan, at, 'escape')
      at += 2
    }
  }
}

/** From `from`, the offset of the first byte that cannot be inside a string as it is. */
function endOfRun(scan: Scan, from: number): number {
  const { bytes, length } = scan
  const words = scan.words ?? makeWords(scan)
  const { wordsAt } = scan
  // The word that holds `from` may begin before it; what it ends with, if anything, is found by the loop below.
  let word = (from - wordsAt + 3) >> 2
  const aligned = Math.min(wordsAt + (word << 2), length)
  for (let at = from; at < aligned; at++) if (endsRun[bytes[at]!] === 1) return at
  const last = words.length - 3
  while (word < last) {
    if (((ends(words[word]!) | ends(words[word + 1]!) | ends(words[word + 2]!) | ends(words[word + 3]!)) & 0x80808080) !== 0)
      break
    word += 4
  }
  let at = Math.max(aligned, wordsAt + (word << 2))
  while (at < length && endsRun[bytes[at]!] === 0) at++
  return at
}

/** Has the high bit of a byte that is a control character, a quote or a backslash; other bits mean nothing. */
function ends(word: number): number {
  return ((word - 0x20202020) | ((word ^ 0x22222222) - 0x01010101) | ((word ^ 0x5c5c5c5c) - 0x01010101)) & ~word
}

function makeWords(scan: Scan): Int32Array {
  const { buffer, byteOffset } = scan.bytes
  const wordsAt = -byteOffset & 3
  scan.wordsAt = wordsAt
  scan.words = new Int32Array(buffer, byteOffset + wordsAt, Math.max(0, scan.length - wordsAt) >> 2)
  return scan.words
}

function endOfScalar(scan: Scan, from: number, first: number): number {
  if (first === MINUS || (first >= ZERO && first <= 0x39)) return endOfNumber(scan, from, first)
  if (first === 0x74) return endOfLiteral(scan, from, 'true')
  if (first === 0x66) return endOfLiteral(scan, from, 'false')
  if (first === 0x6e) return endOfLiteral(scan, from, 'null')
  throw syntaxError(scan, from, 'value')
}

function endOfLiteral(scan: Scan, from: number, literal: string): number {
  const { bytes, length } = scan
  for (let i = 1; i < literal.length; i++) {
    const at = from + i
    if (at >= length || bytes[at] !== literal.charCodeAt(i)) throw syntaxError(scan, at, 'literal')
  }
  return from + literal.length
}

function endOfNumber(scan: Scan, from: number, first: number): number {
  const { bytes, length } = scan
  const start = first === MINUS ? from + 1 : from
  // No digit may follow a leading zero.
  let at = start < length && bytes[start] === ZERO ? start + 1 : endOfDigits(scan, start)
  if (at >= length) return at
  let byte = bytes[at]!
  if (byte === POINT) {
    at = endOfDigits(scan, at + 1)
    byte = at < length ? bytes[at]! : 0
  }
  if ((byte | 0x20) !== 0x65) return at
  const sign = at + 1 < length ? bytes[at + 1]! : 0
  return endOfDigits(scan, sign === 0x2b || sign === MINUS ? at + 2 : at + 1)
}

/** At least one digit. */
function endOfDigits(scan: Scan, from: number): number {
  const { bytes, length } = scan
  let at = from
  while (at < length && bytes[at]! >= ZERO && bytes[at]! <= 0x39) at++
  if (at === from) throw syntaxError(scan, at, 'digit')
  return at
}

export function syntaxError(scan: Scan, at: number, fault: SyntaxFault): SluiceError {
  const detail = describeSyntax(scan.bytes, at, fault)
  return new SluiceError('INVALID_JSON', { detail: `${detail}. Send one JSON value in UTF-8.` })
}
