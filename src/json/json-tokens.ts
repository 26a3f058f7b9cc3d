/**
 * The tokens of JSON over bytes: finds where a string, a number, a literal or white space ends. Long runs are read by words of four
 * bytes, because JSON.parse, which is native code, would be faster otherwise.
 */
import { type Scan, syntaxError, viewOf } from './scan.ts'

const SPACE = 0x20
const QUOTE = 0x22
const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
const BACKSLASH = 0x5c
const UNICODE = 0x75

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
const isSpacePair = Uint8Array.from(
  { length: 65_536 },
  (_, pair) => isSpace[pair >> 8]! & isSpace[pair & 255]!,
)
const isDigit = tableOf((char) => /[0-9]/.test(char))

/** Bytes that are looked at one by one before a run counts as long. */
const SHORT_RUN = 8
/** Bytes that are looked at by two words before the steps get longer. */
const LONG_RUN = 40

// Four bytes at a time: an expression over a word has the high bit of each byte that is a control character, a quote or a backslash.
// Its bits above the lowest such byte mean nothing. It is repeated, because the engine does not inline calls that were rare at first.

/** The offset behind the closing quote of the string whose first character is at `from`. */
export function endOfString(scan: Scan, from: number): number {
  const { bytes, length, view } = scan
  const last = length - 4
  let at = from
  for (;;) {
    let byte = at < length ? bytes[at]! : 0
    while (byte === BACKSLASH) {
      scan.escapeAt = at
      const letter = at + 1 < length ? bytes[at + 1]! : 0
      at = isEscape[letter] === 1 ? at + 2 : endOfEscape(scan, at, letter)
      byte = at < length ? bytes[at]! : 0
    }
    if (byte === QUOTE) return at + 1
    if (byte < SPACE) throw syntaxError(scan, at, 'string')
    if (view !== undefined && at <= last) {
      const word = view.getInt32(at, true)
      const found =
        ((word - 0x20202020) | ((word ^ 0x22222222) - 0x01010101) | ((word ^ 0x5c5c5c5c) - 0x01010101)) &
        ~word &
        0x80808080
      at = found === 0 ? endOfRun(scan, at + 4) : at + ((31 - Math.clz32(found & -found)) >> 3)
    } else at = endOfRun(scan, at)
  }
}

/** From `from`, the offset of the first byte that cannot be inside a string as it is. */
export function endOfRun(scan: Scan, from: number): number {
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
    const word = view.getInt32(at, true)
    const found =
      ((word - 0x20202020) | ((word ^ 0x22222222) - 0x01010101) | ((word ^ 0x5c5c5c5c) - 0x01010101)) &
      ~word &
      0x80808080
    if (found !== 0) return at + firstByte(found)
    const next = view.getInt32(at + 4, true)
    const later =
      ((next - 0x20202020) | ((next ^ 0x22222222) - 0x01010101) | ((next ^ 0x5c5c5c5c) - 0x01010101)) &
      ~next &
      0x80808080
    if (later !== 0) return at + 4 + firstByte(later)
    if (at === long) at = skipLongRun(view, at, length)
  }
  while (at < length && endsRun[bytes[at]!] === 0) at++
  return at
}

/** The 8 bytes at `from` belong to the run; so do those at the offset that it returns, which is less than 24 bytes before its end. */
function skipLongRun(view: DataView, from: number, length: number): number {
  let at = from
  for (const last = length - 24; at <= last; at += 16) {
    const a = view.getInt32(at + 8, true)
    const b = view.getInt32(at + 12, true)
    const c = view.getInt32(at + 16, true)
    const d = view.getInt32(at + 20, true)
    const found =
      (((a - 0x20202020) | ((a ^ 0x22222222) - 0x01010101) | ((a ^ 0x5c5c5c5c) - 0x01010101)) & ~a) |
      (((b - 0x20202020) | ((b ^ 0x22222222) - 0x01010101) | ((b ^ 0x5c5c5c5c) - 0x01010101)) & ~b) |
      (((c - 0x20202020) | ((c ^ 0x22222222) - 0x01010101) | ((c ^ 0x5c5c5c5c) - 0x01010101)) & ~c) |
      (((d - 0x20202020) | ((d ^ 0x22222222) - 0x01010101) | ((d ^ 0x5c5c5c5c) - 0x01010101)) & ~d)
    if ((found & 0x80808080) !== 0) break
  }
  return at
}

/** The position of the first byte with a bit that is set. Words are read as little-endian, so it has the lowest. */
function firstByte(word: number): number {
  return (31 - Math.clz32(word & -word)) >> 3
}

/** The value of the four hexadecimal digits at `at`. */
export function codeUnitAt(bytes: Buffer, at: number): number {
  const high = (hexValue[bytes[at]!]! << 12) | (hexValue[bytes[at + 1]!]! << 8)
  return high | (hexValue[bytes[at + 2]!]! << 4) | hexValue[bytes[at + 3]!]!
}

/** The offset behind an escape with `u`. */
function endOfEscape(scan: Scan, at: number, letter: number): number {
  const { bytes, length } = scan
  if (letter !== UNICODE) throw syntaxError(scan, at, 'escape')
  const isWhole =
    at + 5 < length &&
    (hexValue[bytes[at + 2]!]! |
      hexValue[bytes[at + 3]!]! |
      hexValue[bytes[at + 4]!]! |
      hexValue[bytes[at + 5]!]!) <
      16
  if (!isWhole) throw syntaxError(scan, at, 'unicode escape')
  return at + 6
}

export function skipSpace(scan: Scan, from: number): number {
  const { bytes, length } = scan
  if (from >= length || bytes[from]! > SPACE) return from
  if (bytes[from] !== SPACE || from + 1 >= length || bytes[from + 1]! <= SPACE)
    return skipLongSpace(scan, from)
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
    while (
      at <= last &&
      (isSpacePair[view.getUint16(at, true)]! & isSpacePair[view.getUint16(at + 2, true)]!) === 1
    )
      at += 4
  }
  while (at < length && isSpace[bytes[at]!] === 1) at++
  return at
}

/** The offset behind `true`, `false` or `null`. */
export function endOfLiteral(scan: Scan, from: number, first: number): number {
  const { bytes, length } = scan
  if (from + 4 <= length) {
    const second = bytes[from + 1]! | (bytes[from + 2]! << 8) | (bytes[from + 3]! << 16)
    if (first === 0x74 && second === 0x657572) return from + 4
    if (first === 0x6e && second === 0x6c6c75) return from + 4
    if (first === 0x66 && second === 0x736c61 && from + 4 < length && bytes[from + 4] === 0x65)
      return from + 5
  }
  throw syntaxError(scan, from, first === 0x6e || first === 0x74 || first === 0x66 ? 'literal' : 'value')
}

export function endOfNumber(scan: Scan, from: number, first: number): number {
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
