/**
 * Orders the members of every object of a text by their names. The text is compact, and its strings are spelled as JSON.stringify
 * does, so that equal names have equal bytes. One pass finds the objects that are out of order, a second copies each byte once.
 */
import { copyBytes } from './copy-bytes.ts'
import { codeUnitAt, endOfString } from './json-tokens.ts'
import type { Scan } from './scan.ts'

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const ARRAY = 0x5b
const BACKSLASH = 0x5c
const ARRAY_END = 0x5d
const UNICODE = 0x75
const OBJECT = 0x7b
const OBJECT_END = 0x7d

/** The characters of \b, \t, \n, \f and \r by their letters; an escaped quote or backslash stands for itself. */
const controls: Record<number, number> = { 98: 0x08, 116: 0x09, 110: 0x0a, 102: 0x0c, 114: 0x0d }

/** An object that is out of order. */
interface Reordering {
  /** The offsets of its braces. */
  open: number
  close: number
  /** The start and the end of each member, in order of the names. */
  members: number[]
}

/** Returns the text itself if all members are in order. */
export function orderMembers(scan: Scan): Buffer {
  const reorderings = findReorderings(scan)
  return reorderings.length === 0 ? scan.bytes : copyInOrder(scan.bytes, reorderings)
}

/** In order of their start. */
function findReorderings(scan: Scan): Reordering[] {
  const { bytes, length } = scan
  const found: Reordering[] = []
  /** For each open container: its offset; and `base` and `isOrdered` of the one around it. */
  const opens: number[] = []
  const bases: number[] = []
  const orders: boolean[] = []
  /** Start and end of the members that have been read of the open objects. */
  const members: number[] = []
  /** Where the members of the innermost object begin; -1 in an array. */
  let base = -1
  let isOrdered = true
  for (let at = 0; at < length; ) {
    const byte = bytes[at]!
    if (byte === QUOTE) {
      const end = endOfString(scan, at + 1)
      if (base >= 0 && bytes[end] === COLON) {
        const size = members.length
        if (isOrdered && size > base) isOrdered = compareNames(bytes, members[size - 2]!, at) <= 0
        members.push(at, 0)
      }
      at = end
      continue
    }
    if (byte === OBJECT || byte === ARRAY) {
      opens.push(at)
      bases.push(base)
      orders.push(isOrdered)
      base = byte === OBJECT ? members.length : -1
      isOrdered = true
    } else if (byte === COMMA) {
      if (base >= 0) members[members.length - 1] = at
    } else if (byte === OBJECT_END || byte === ARRAY_END) {
      const open = opens.pop()!
      if (base >= 0 && members.length > base) {
        members[members.length - 1] = at
        if (!isOrdered) found.push({ open, close: at, members: sortMembers(bytes, members, base) })
        members.length = base
      }
      isOrdered = orders.pop()!
      base = bases.pop()!
    }
    at++
  }
  return found.sort((a, b) => a.open - b.open)
}

/** Instead of the end of a range: a comma. */
const SEPARATOR = -1
/** More members are sorted by the engine. */
const INSERTION_MAX = 16

/** The members from `base`, in order of their names; those of one name keep their order. */
function sortMembers(bytes: Buffer, members: readonly number[], base: number): number[] {
  const count = (members.length - base) / 2
  if (count > INSERTION_MAX) {
    return Array.from({ length: count }, (_, i) => base + 2 * i)
      .sort((a, b) => compareNames(bytes, members[a]!, members[b]!))
      .flatMap((at) => [members[at]!, members[at + 1]!])
  }
  const sorted = members.slice(base)
  for (let i = 2; i < sorted.length; i += 2) {
    const start = sorted[i]!
    const end = sorted[i + 1]!
    let at = i
    for (; at > 0 && compareNames(bytes, sorted[at - 2]!, start) > 0; at -= 2) {
      sorted[at] = sorted[at - 2]!
      sorted[at + 1] = sorted[at - 1]!
    }
    sorted[at] = start
    sorted[at + 1] = end
  }
  return sorted
}

function copyInOrder(bytes: Buffer, reorderings: readonly Reordering[]): Buffer {
  const out = Buffer.allocUnsafe(bytes.length)
  let size = 0
  /** Ranges to copy, the next one last, each as its end and its start. */
  const ranges = [bytes.length, 0]
  while (ranges.length > 0) {
    const from = ranges.pop()!
    const end = ranges.pop()!
    if (end === SEPARATOR) {
      out[size++] = COMMA
      continue
    }
    const next = reorderings[firstFrom(reorderings, from)]
    if (next === undefined || next.open >= end) {
      size = copyBytes(bytes, from, end, out, size)
      continue
    }
    size = copyBytes(bytes, from, next.open + 1, out, size)
    const { close, members } = next
    ranges.push(end, close)
    for (let i = members.length - 2; i >= 0; i -= 2) {
      ranges.push(members[i + 1]!, members[i]!)
      if (i > 0) ranges.push(SEPARATOR, 0)
    }
  }
  return out
}

/** The index of the first reordering that starts at `from` or later. */
function firstFrom(reorderings: readonly Reordering[], from: number): number {
  let low = 0
  let high = reorderings.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (reorderings[middle]!.open < from) low = middle + 1
    else high = middle
  }
  return low
}

/** Orders the names whose quotes are at `a` and `b` by their code units. 0: they are the same. */
function compareNames(bytes: Buffer, a: number, b: number): number {
  let i = 1
  for (;;) {
    const byte = bytes[a + i]!
    if (byte !== bytes[b + i]) break
    if (byte === QUOTE) return 0
    if (byte !== BACKSLASH) i++
    else {
      const letter = bytes[a + i + 1]!
      if (letter !== bytes[b + i + 1]) break
      if (letter === UNICODE && codeUnitAt(bytes, a + i + 2) !== codeUnitAt(bytes, b + i + 2)) break
      i += letter === UNICODE ? 6 : 2
    }
  }
  // Back to the start of the character of several bytes.
  while ((bytes[a + i]! & 0xc0) === 0x80 || (bytes[b + i]! & 0xc0) === 0x80) i--
  return orderAt(bytes, a + i) - orderAt(bytes, b + i)
}

/** More than there are code units, and -1. */
const UNITS = 0x10001

/** The code unit at `at`; -1 for the closing quote. After the first half of a surrogate pair, the next unit is a fraction. */
function orderAt(bytes: Buffer, at: number): number {
  const unit = unitAt(bytes, at)
  if ((unit & 0xfc00) !== 0xd800) return unit
  const next = bytes[at] === BACKSLASH ? unitAt(bytes, at + 6) : secondHalfAt(bytes, at)
  return unit + (next + 1) / UNITS
}

/** The first code unit of the character at `at`; -1 for the closing quote. */
function unitAt(bytes: Buffer, at: number): number {
  const byte = bytes[at]!
  if (byte === QUOTE) return -1
  if (byte === BACKSLASH) {
    const letter = bytes[at + 1]!
    if (letter === UNICODE) return codeUnitAt(bytes, at + 2)
    return controls[letter] ?? letter
  }
  if (byte < 0x80) return byte
  if (byte < 0xe0) return ((byte & 0x1f) << 6) | (bytes[at + 1]! & 0x3f)
  if (byte < 0xf0) return ((byte & 0x0f) << 12) | ((bytes[at + 1]! & 0x3f) << 6) | (bytes[at + 2]! & 0x3f)
  const high = ((byte & 0x07) << 18) | ((bytes[at + 1]! & 0x3f) << 12) | ((bytes[at + 2]! & 0x3f) << 6)
  return 0xd800 + ((high - 0x10000) >> 10)
}

/** The second code unit of the character of four bytes at `at`. */
function secondHalfAt(bytes: Buffer, at: number): number {
  return 0xdc00 | ((bytes[at + 2]! & 0x0f) << 6) | (bytes[at + 3]! & 0x3f)
}
