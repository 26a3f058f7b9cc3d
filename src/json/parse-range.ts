/**
 * Parses a range of bytes that is known to be valid JSON, as JSON.parse does. Short scalars are read here, because JSON.parse needs
 * a string first; short strings are kept, because bodies repeat them: names of queues, jobs and members, outcomes.
 */

/** What parsing needs to know of the body, and the short strings of earlier bodies. */
export interface Texts {
  /** Whether all bytes of the body are ASCII. */
  isAscii: boolean
  /** A table by hash: the string, its size in bytes, and the bytes. */
  strings: string[]
  sizes: Uint8Array
  bytes: Uint8Array
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
/** The bytes of a number that are read here; all of them fit into a double. */
const INTEGER_BYTES = 15
/** Longer strings are searched for escapes by JSON.parse. */
const STRING_BYTES = 256
/** Longer strings are not kept. */
const KEPT_BYTES = 24
/** A power of two. */
const KEPT_MAX = 512

export function createTexts(): Texts {
  return {
    isAscii: false,
    strings: Array<string>(KEPT_MAX).fill(''),
    sizes: new Uint8Array(KEPT_MAX),
    bytes: new Uint8Array(KEPT_MAX * KEPT_BYTES),
  }
}

export function parseRange(texts: Texts, body: Buffer, from: number, end: number): unknown {
  switch (body[from]) {
    case QUOTE:
      return parseString(texts, body, from, end)
    case 0x74:
      return true
    case 0x66:
      return false
    case 0x6e:
      return null
    default: {
      const integer = integerOf(body, from, end)
      return integer < 0 ? JSON.parse(decode(texts, body, from, end)) : integer
    }
  }
}

/** A string, or the name of a member; the range has the quotes. */
export function parseString(texts: Texts, body: Buffer, from: number, end: number): string {
  let hash = 0
  let isPlain = end - from <= STRING_BYTES
  for (let at = from + 1; isPlain && at < end; at++) {
    const byte = body[at]!
    isPlain = byte !== BACKSLASH
    hash = (Math.imul(hash, 31) + byte) | 0
  }
  if (!isPlain) return JSON.parse(decode(texts, body, from, end)) as string
  if (end - from - 2 > KEPT_BYTES) return decode(texts, body, from + 1, end - 1)
  return keptString(texts, body, from + 1, end - 1, hash)
}

function keptString(texts: Texts, body: Buffer, from: number, end: number, hash: number): string {
  const { strings, sizes, bytes } = texts
  const size = end - from
  const slot = (hash ^ (hash >>> 9)) & (KEPT_MAX - 1)
  const start = slot * KEPT_BYTES
  let isSame = sizes[slot] === size
  for (let i = 0; isSame && i < size; i++) isSame = bytes[start + i] === body[from + i]
  if (isSame) return strings[slot]!
  const string = decode(texts, body, from, end)
  strings[slot] = string
  sizes[slot] = size
  for (let i = 0; i < size; i++) bytes[start + i] = body[from + i]!
  return string
}

function decode({ isAscii }: Texts, body: Buffer, from: number, end: number): string {
  return body.toString(isAscii ? 'latin1' : 'utf8', from, end)
}

/** -1 for anything but an integer of few digits. */
function integerOf(body: Buffer, from: number, end: number): number {
  if (end - from > INTEGER_BYTES) return -1
  let integer = 0
  for (let at = from; at < end; at++) {
    const digit = body[at]! - 0x30
    if (digit < 0 || digit > 9) return -1
    integer = integer * 10 + digit
  }
  return integer
}
