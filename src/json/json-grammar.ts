/**
 * The grammar of JSON (RFC 8259) over bytes: finds where a value ends and builds nothing. A fault of the grammar throws;
 * depth and forbidden keys (`__proto__`, and `prototype` inside `constructor`) are reported to the scan, which may go on.
 */
import { codeUnitAt, endOfLiteral, endOfNumber, endOfString, skipSpace } from './json-tokens.ts'
import { refuse, type Scan, syntaxError } from './scan.ts'

const SPACE = 0x20
const QUOTE = 0x22
const COMMA = 0x2c
const MINUS = 0x2d
const ZERO = 0x30
const NINE = 0x39
const COLON = 0x3a
const ARRAY = 0x5b
const BACKSLASH = 0x5c
const ARRAY_END = 0x5d
const UNICODE = 0x75
const OBJECT = 0x7b
const OBJECT_END = 0x7d
/** The kind of an object that is the value of `constructor`: OBJECT_END, marked. */
const CONSTRUCTOR = 0x80 | OBJECT_END
/** The distance from an opening bracket to its closing one. */
const TO_END = 2
/** A name with more bytes is not read by `endOfName` itself. */
const SHORT_NAME = 8

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
    } else if ((first >= ZERO && first <= NINE) || first === MINUS) at = endOfNumber(scan, at, first)
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

function growStack(scan: Scan): Uint8Array {
  const stack = new Uint8Array(scan.stack.length * 2)
  stack.set(scan.stack)
  scan.stack = stack
  return stack
}

/**
 * The start of the value of the member whose name starts at `from`. `isConstructor`: the object is the value of
 * `constructor`.
 */
export function endOfName(scan: Scan, from: number, isConstructor: boolean): number {
  const { bytes, length } = scan
  if (from >= length || bytes[from] !== QUOTE) throw syntaxError(scan, from, 'name')
  const name = from + 1
  const shortEnd = Math.min(name + SHORT_NAME, length)
  let at = name
  while (at < shortEnd && bytes[at]! > QUOTE && bytes[at] !== BACKSLASH) at++
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
      if (bytes[at] !== UNICODE) return false
      byte = codeUnitAt(bytes, at + 1)
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
