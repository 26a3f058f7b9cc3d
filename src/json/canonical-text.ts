/**
 * Two spellings of a value that stays text. Compact: without white space between tokens. Canonical: also with members in the order of
 * their names and each string spelled as JSON.stringify does, so that equal values have equal texts. Numbers stay as they were sent.
 */
import { copyBytes } from './copy-bytes.ts'
import { type RawJson, rawBytes } from './json-scanner.ts'
import { codeUnitAt, endOfRun, endOfString, skipSpace } from './json-tokens.ts'
import { orderMembers } from './member-order.ts'
import { beginScan, createScan, endScan, type Scan } from './scan.ts'

export interface JsonTexts {
  /** A view of the body if the value is compact already. */
  compact(raw: RawJson): Buffer
  /** May be a view of the body. Members with the same name keep their order; names are ordered by code units. */
  canonical(raw: RawJson): Buffer
}

export function createJsonTexts(): JsonTexts {
  const rewrite: Rewrite = { scan: createScan(), runAt: 0, out: noBytes, size: 0 }
  return {
    compact(raw) {
      return raw.spaces === 0 ? rawBytes(raw) : dropSpaces(rewrite.scan, raw)
    },
    canonical(raw) {
      const { scan } = rewrite
      const bytes = rawBytes(raw)
      const isSpelled = raw.spaces === 0 && !bytes.includes(BACKSLASH)
      const spelled = isSpelled ? bytes : respellAll(rewrite, bytes)
      beginScan(scan, spelled)
      try {
        return orderMembers(scan)
      } finally {
        endScan(scan)
      }
    },
  }
}

const noBytes = Buffer.alloc(0)
const SPACE = 0x20
const QUOTE = 0x22
const BACKSLASH = 0x5c
const UNICODE = 0x75

/** Runs between spaces are short, so that only strings are copied as ranges. */
function dropSpaces(scan: Scan, raw: RawJson): Buffer {
  const bytes = rawBytes(raw)
  const { length } = bytes
  const out = Buffer.allocUnsafe(length - raw.spaces)
  let size = 0
  beginScan(scan, bytes)
  try {
    for (let at = 0; at < length; ) {
      const byte = bytes[at]!
      if (byte === QUOTE) {
        const end = endOfString(scan, at + 1)
        size = copyBytes(bytes, at, end, out, size)
        at = end
      } else {
        if (byte > SPACE) out[size++] = byte
        at++
      }
    }
    return out
  } finally {
    endScan(scan)
  }
}

/** Copies a text in runs: from `runAt`, nothing has changed. */
interface Rewrite {
  scan: Scan
  runAt: number
  out: Buffer
  size: number
}

/** Drops white space, and spells each string as JSON.stringify does. */
function respellAll(rewrite: Rewrite, bytes: Buffer): Buffer {
  const { scan } = rewrite
  const { length } = bytes
  beginScan(scan, bytes)
  rewrite.runAt = 0
  rewrite.size = 0
  try {
    for (let at = 0; at < length; ) {
      const byte = bytes[at]!
      if (byte === QUOTE) at = respellString(rewrite, at + 1)
      else if (byte <= SPACE) {
        endRun(rewrite, at)
        at = skipSpace(scan, at)
        rewrite.runAt = at
      } else at++
    }
    if (rewrite.out === noBytes) return bytes
    endRun(rewrite, length)
    return rewrite.out.subarray(0, rewrite.size)
  } finally {
    endScan(scan)
    rewrite.out = noBytes
  }
}

/** Copies the run that ends at `end`. */
function endRun(rewrite: Rewrite, end: number): void {
  // No spelling is longer than the one that was sent.
  if (rewrite.out === noBytes) rewrite.out = Buffer.allocUnsafe(rewrite.scan.length)
  rewrite.size = copyBytes(rewrite.scan.bytes, rewrite.runAt, end, rewrite.out, rewrite.size)
}

/** Only quotes, backslashes, control characters and halves of surrogate pairs stay escapes. Returns the end of the string. */
function respellString(rewrite: Rewrite, from: number): number {
  const { scan } = rewrite
  const { bytes } = scan
  let at = from
  for (;;) {
    if (bytes[at] !== BACKSLASH) at = endOfRun(scan, at)
    if (bytes[at] === QUOTE) return at + 1
    const letter = bytes[at + 1]
    if (letter !== UNICODE && letter !== 0x2f) at += 2
    else {
      endRun(rewrite, at)
      at = letter === UNICODE ? respellEscape(rewrite, at) : at + 1
      rewrite.runAt = at
    }
  }
}

/** Writes the character of the escape with `u` at `at`. Returns the end of the escape, or of the two of a surrogate pair. */
function respellEscape(rewrite: Rewrite, at: number): number {
  const { bytes, length } = rewrite.scan
  const unit = codeUnitAt(bytes, at + 2)
  const isPair =
    (unit & 0xfc00) === 0xd800 &&
    at + 11 < length &&
    bytes[at + 6] === BACKSLASH &&
    bytes[at + 7] === UNICODE &&
    (codeUnitAt(bytes, at + 8) & 0xfc00) === 0xdc00
  if (isPair) writePoint(rewrite, 0x10000 + ((unit & 0x3ff) << 10) + (codeUnitAt(bytes, at + 8) & 0x3ff))
  else writePoint(rewrite, unit)
  return isPair ? at + 12 : at + 6
}

function writePoint(rewrite: Rewrite, point: number): void {
  const { out } = rewrite
  const isEscaped = point < SPACE || point === QUOTE || point === BACKSLASH || (point & 0xfffff800) === 0xd800
  if (isEscaped)
    rewrite.size += out.write(JSON.stringify(String.fromCharCode(point)).slice(1, -1), rewrite.size, 'latin1')
  else if (point < 0x80) out[rewrite.size++] = point
  else {
    if (point < 0x800) out[rewrite.size++] = 0xc0 | (point >> 6)
    else {
      if (point < 0x10000) out[rewrite.size++] = 0xe0 | (point >> 12)
      else {
        out[rewrite.size++] = 0xf0 | (point >> 18)
        out[rewrite.size++] = 0x80 | ((point >> 12) & 0x3f)
      }
      out[rewrite.size++] = 0x80 | ((point >> 6) & 0x3f)
    }
    out[rewrite.size++] = 0x80 | (point & 0x3f)
  }
}
