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
  /** Reads words of the bytes; `undefined` for a small text until it has a long run. */
  view: DataView | undefined
  /** Has a copy of a small text, which is faster than a new view. */
  smallBytes: Uint8Array
  smallView: DataView
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
const SMALL_BYTES = 2_048

export function createScan(): Scan {
  const smallBytes = new Uint8Array(SMALL_BYTES)
  return {
    bytes: noBytes,
    length: 0,
    stack: new Uint8Array(STACK_LEVELS),
    view: undefined,
    smallBytes,
    smallView: new DataView(smallBytes.buffer),
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
  if (bytes.length > SMALL_BYTES) scan.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** Lets go of the text, and of a stack that had to grow. */
export function endScan(scan: Scan): void {
  scan.bytes = noBytes
  scan.view = undefined
  if (scan.stack.length > STACK_LEVELS) scan.stack = new Uint8Array(STACK_LEVELS)
}

export const QUOTE = 0x22
export const COMMA = 0x2c
export const COLON = 0x3a
export const ARRAY = 0x5b
export const ARRAY_END = 0x5d
export const OBJECT = 0x7b
export const OBJECT_END = 0x7d
const SPACE = 0x20
const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
const BACKSLASH = 0x5c
const UNICODE = 0x75
/** The kind of an object that is the value of `constructor`: OBJECT_END, marked. */
const CONSTRUCTOR = 0x80 | OBJECT_END
/** The distance from an opening bracket to its closing one. */
const TO_END = 2

const tableOf = (of: (char: string) => boolean) =>
  Uint8Array.from({ length: 256 }, (_, byte) => (of(String.fromCharCode(byte)) ? 1 : 0))
/** 1 for a byte that cannot be inside a string as it is. */
const endsRun = tableOf((char) => char < ' ' || char === '"' || char === '\\')
const isEscape = tableOf((char) => '"\\/bfnrt'.includes(char))
/** The value of a hexadecimal digit; 16 and more for any other byte. */
const hexValue = Uint8Array.from({ length: 256 }, (_, byte) => {
  const value = Number.parseInt(String.fromCharCode(byte), 16)
  return Number.isNaN(value) ? 0xff : value
})
const isSpace = tableOf((char) => ' \n\r\t'.includes(char))
/** The same for two bytes. */
const isSpacePair = Uint8Array.from({ length: 65_536 }, (_, pair) => isSpace[pair >> 8]! & isSpace[pair & 255]!)
const isDigit = tableOf((char) => /[0-9]/.test(char))

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
    if (kind > ARRAY_END) at = endOfName(scan, at, kind === CONSTRUCTOR)
    const first = at < length ? bytes[at]! : 0
    if (first === QUOTE) at = endOfString(scan, at + 1)
    else if (first === OBJECT || first === ARRAY) {
      if (depth === levels) refuse(scan, 'JSON_TOO_DEEP', at)
      if (depth === stack.length) stack = growStack(scan)
      stack[depth++] = kind
      kind = first === OBJECT && at === scan.constructorAt ? CONSTRUCTOR : first + TO_END
      if (++at < length && bytes[at]! <= SPACE) at = skipSpace(scan, at)
      if (at >= length || bytes[at] !== first + TO_END) continue
      kind = stack[--depth]!
      at++
    } else if (isDigit[first] === 1 || first === MINUS) at = endOfNumber(scan, at, first)
    else at = endOfLiteral(scan, at, first)
    // A value has ended. Close the containers that end with it, up to the start of the next value.
    for (;;) {
      if (depth === 0) return at
      if (at < length && bytes[at]! <= SPACE) at = skipSpace(scan, at)
      const next = at < length ? bytes[at]! : 0
      if (next === COMMA) {
        if (++at < length && bytes[at]! <= SPACE) at = skipSpace(scan, at)
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
  if (from >= length || bytes[from]! > SPACE) return from
  if (bytes[from] !== SPACE || from + 1 >= length || bytes[from + 1]! <= SPACE) return skipLongSpace(scan, from)
  scan.spaces++
  return from + 1
}

function skipLongSpace(scan: Scan, from: number): number {
  const { bytes, length } = scan
  let at = from
  const shortEnd = Math.min(from + SHORT_RUN, length)
  while (at < shortEnd && isSpace[bytes[at]!] === 1) at++
  if (at === shortEnd) at = endOfSpace(scan, at)
  scan.spaces += at - from
  return at
}

function endOfSpace(scan: Scan, from: number): number {
  const { bytes, length } = scan
  let at = from
  if (length - from > SHORT_RUN) {
    const view = viewOf(scan)
    const last = length - 4
    // Indentation repeats one word.
    const word = view.getInt32(from - 4, true)
    while (at <= last && view.getInt32(at, true) === word) at += 4
    while (at <= last && (isSpacePair[view.getUint16(at, true)]! & isSpacePair[view.getUint16(at + 2, true)]!) === 1) at += 4
  }
  while (at < length && isSpace[bytes[at]!] === 1) at++
  return at
}

/**
 * The start of the value of the member whose name starts at `from`. `isConstructor`: the object is the value of
 * `constructor`.
 */
export function endOfName(scan: Scan, from: number, isConstructor: boolean): number {
  const { bytes, length } = scan
  if (from >= length || bytes[from] !== QUOTE) throw syntaxError(scan, from, 'name')
  const name = from + 1
  const shortEnd = Math.min(name + SHORT_RUN, length)
  let at = name
  while (at < shortEnd && endsRun[bytes[at]!] === 0) at++
  at = at < shortEnd && bytes[at] === QUOTE ? at + 1 : endOfString(scan, name)
  const nameEnd = at - 1
  scan.nameEnd = nameEnd
  if (at < length && bytes[at] === COLON) at++
  else {
    at = skipSpace(scan, at)
    if (at >= length || bytes[at] !== COLON) throw syntaxError(scan, at, 'colon')
    at++
  }
  if (at < length && bytes[at]! <= SPACE) at = skipSpace(scan, at)
  const size = nameEnd - name
  if (size === 9 || size === 11 || scan.escapeAt > from) checkName(scan, name, isConstructor, at)
  return at
}

const protoName = Buffer.from('__proto__')
const constructorName = Buffer.from('constructor')
const prototypeName = Buffer.from('prototype')

/** Whether the member name that starts at `from` and was the last one read is `name` (ASCII), in any spelling. */
export function isName(scan: Scan, from: number, name: Buffer): boolean {
  const { bytes, nameEnd } = scan
  const size = name.length
  if (scan.escapeAt >= from) return isEscapedName(scan, from, name)
  if (nameEnd - from !== size) return false
  for (let i = 0; i < size; i++) if (bytes[from + i] !== name[i]) return false
  return true
}

function isEscapedName({ bytes, nameEnd }: Scan, from: number, name: Buffer): boolean {
  let at = from
  for (const expected of name) {
    if (at >= nameEnd) return false
    let byte = bytes[at++]!
    if (byte === BACKSLASH) {
      // Only escapes with `u` spell the characters of such a name, which are ASCII.
      if (bytes[at] !== UNICODE || bytes[at + 1] !== ZERO || bytes[at + 2] !== ZERO) return false
      byte = hexValue[bytes[at + 3]!]! * 16 + hexValue[bytes[at + 4]!]!
      at += 5
    }
    if (byte !== expected) return false
  }
  return at === nameEnd
}

function checkName(scan: Scan, from: number, isConstructor: boolean, valueAt: number): void {
  if (isName(scan, from, protoName) || (isConstructor && isName(scan, from, prototypeName)))
    refuse(scan, 'FORBIDDEN_KEY', from - 1)
  else if (isName(scan, from, constructorName)) scan.constructorAt = valueAt
}

/** Bytes that are looked at one by one before a run counts as long. */
const SHORT_RUN = 8
/** Bytes that are looked at by two words before the steps get longer. */
const LONG_RUN = 40

function viewOf(scan: Scan): DataView {
  if (scan.view) return scan.view
  scan.smallBytes.set(scan.bytes)
  scan.view = scan.smallView
  return scan.view
}

/** The offset behind the closing quote of the string whose first character is at `from`. */
export function endOfString(scan: Scan, from: number): number {
  const { bytes, length, view } = scan
  const last = length - 4
  let at = from
  for (;;) {
    let byte = at < length ? bytes[at]! : 0
    while (byte === BACKSLASH) {
      scan.escapeAt = at
      const escape = at + 1 < length ? bytes[at + 1]! : 0
      at = isEscape[escape] === 1 ? at + 2 : endOfEscape(scan, at, escape)
      byte = at < length ? bytes[at]! : 0
    }
    if (byte === QUOTE) return at + 1
    if (byte < SPACE) throw syntaxError(scan, at, 'string')
    if (view !== undefined && at <= last) {
      const found = ends(view.getInt32(at, true)) & 0x80808080
      at = found === 0 ? endOfRun(scan, at + 4) : at + firstByte(found)
    } else at = endOfRun(scan, at)
  }
}

/** From `from`, the offset of the first byte that cannot be inside a string as it is. */
function endOfRun(scan: Scan, from: number): number {
  const { bytes, length } = scan
  let { view } = scan
  let at = from
  if (view === undefined) {
    const shortEnd = Math.min(from + SHORT_RUN, length)
    while (at < shortEnd && endsRun[bytes[at]!] === 0) at++
    if (at < shortEnd || at === length) return at
    view = viewOf(scan)
  }
  const long = at + LONG_RUN
  for (const last = length - 8; at <= last; at += 8) {
    const first = ends(view.getInt32(at, true)) & 0x80808080
    const second = ends(view.getInt32(at + 4, true)) & 0x80808080
    if (first !== 0) return at + firstByte(first)
    if (second !== 0) return at + 4 + firstByte(second)
    if (at === long) at = skipLongRun(view, at, length)
  }
  while (at < length && endsRun[bytes[at]!] === 0) at++
  return at
}

/** Stops up to 16 bytes before the end of the run. */
function skipLongRun(view: DataView, from: number, length: number): number {
  let at = from
  for (const last = length - 24; at <= last; at += 16) {
    const first = ends(view.getInt32(at + 8, true)) | ends(view.getInt32(at + 12, true))
    const second = ends(view.getInt32(at + 16, true)) | ends(view.getInt32(at + 20, true))
    if (((first | second) & 0x80808080) !== 0) break
  }
  return at
}

/** The position of the first byte with a bit that is set. Words are read as little-endian, so it has the lowest. */
function firstByte(word: number): number {
  return (31 - Math.clz32(word & -word)) >> 3
}

/** Has the high bit of a byte that is a control character, a quote or a backslash. Bits above the lowest such one mean nothing. */
function ends(word: number): number {
  return ((word - 0x20202020) | ((word ^ 0x22222222) - 0x01010101) | ((word ^ 0x5c5c5c5c) - 0x01010101)) & ~word
}

/** The offset behind an escape with `u`. */
function endOfEscape(scan: Scan, at: number, escape: number): number {
  const { bytes, length } = scan
  if (escape !== UNICODE) throw syntaxError(scan, at, 'escape')
  const isWhole =
    at + 5 < length &&
    (hexValue[bytes[at + 2]!]! | hexValue[bytes[at + 3]!]! | hexValue[bytes[at + 4]!]! | hexValue[bytes[at + 5]!]!) < 16
  if (!isWhole) throw syntaxError(scan, at, 'unicode escape')
  return at + 6
}

function endOfLiteral(scan: Scan, from: number, first: number): number {
  const { bytes, length } = scan
  if (from + 4 <= length) {
    const second = bytes[from + 1]! | (bytes[from + 2]! << 8) | (bytes[from + 3]! << 16)
    if (first === 0x74 && second === 0x657572) return from + 4
    if (first === 0x6e && second === 0x6c6c75) return from + 4
    if (first === 0x66 && second === 0x736c61 && from + 4 < length && bytes[from + 4] === 0x65) return from + 5
  }
  throw syntaxError(scan, from, first === 0x6e || first === 0x74 || first === 0x66 ? 'literal' : 'value')
}

function endOfNumber(scan: Scan, from: number, first: number): number {
  const { bytes, length } = scan
  let at = from + 1
  let digit = first
  if (first === MINUS) {
    digit = at < length ? bytes[at]! : 0
    if (isDigit[digit] === 0) throw syntaxError(scan, at, 'digit')
    at++
  }
  // No digit may follow a leading zero.
  if (digit !== ZERO) at = skipDigits(scan, at)
  const next = at < length ? bytes[at]! : 0
  if (next !== POINT && (next | 0x20) !== 0x65) return at
  return endOfFraction(scan, at, next)
}

function endOfFraction(scan: Scan, from: number, first: number): number {
  const { bytes, length } = scan
  const at = first === POINT ? endOfDigits(scan, from + 1) : from
  const byte = at < length ? bytes[at]! : 0
  if ((byte | 0x20) !== 0x65) return at
  const sign = at + 1 < length ? bytes[at + 1]! : 0
  return endOfDigits(scan, sign === 0x2b || sign === MINUS ? at + 2 : at + 1)
}

/** At least one digit. */
function endOfDigits(scan: Scan, from: number): number {
  const at = skipDigits(scan, from)
  if (at === from) throw syntaxError(scan, at, 'digit')
  return at
}

function skipDigits(scan: Scan, from: number): number {
  const { bytes, length, view } = scan
  let at = from
  if (view !== undefined) {
    for (const last = length - 4; at <= last; at += 4) {
      const word = view.getInt32(at, true) ^ 0x30303030
      // Digits are 0 to 9 now; a byte that is not one has a bit in its upper half, or gets one by adding 6.
      const found = (word | (word + 0x06060606)) & 0xf0f0f0f0
      if (found !== 0) return at + firstByte(found)
    }
  }
  while (at < length && isDigit[bytes[at]!] === 1) at++
  return at
}

export function syntaxError(scan: Scan, at: number, fault: SyntaxFault): SluiceError {
  const detail = describeSyntax(scan.bytes, at, fault)
  return new SluiceError('INVALID_JSON', { detail: `${detail}. Send one JSON value in UTF-8.` })
}
