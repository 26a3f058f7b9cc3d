/**
 * Rewrites a canonical text as JSON.parse and a stable JSON.stringify do: numbers rounded and spelled anew, and of members with
 * the same name only the last. It builds no objects, since a whole body parsed at once would block the event loop.
 */
import { copyBytes } from './copy-bytes.ts'
import { endOfString } from './json-tokens.ts'
import { beginScan, createScan, endScan, type Scan } from './scan.ts'

const QUOTE = 0x22
const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
const NINE = 0x39
const COLON = 0x3a
const ARRAY = 0x5b
const ARRAY_END = 0x5d
const OBJECT = 0x7b
const OBJECT_END = 0x7d
const EXPONENT = 0x65
/** Numbers of so many bytes fit into a double, whatever their sign and point. */
const EXACT_BYTES = 15
const NO_NAME = -1

/** Copies a text in runs: from `runAt`, nothing has changed. */
interface Rounding {
  scan: Scan
  runAt: number
  out: Buffer
  size: number
}

/** Returns a function from a canonical text to the rounded one; the same Buffer if nothing changes. */
export function createRounding(): (canonical: Buffer) => Buffer {
  const rounding: Rounding = { scan: createScan(), runAt: 0, out: noBytes, size: 0 }
  return (canonical) => {
    beginScan(rounding.scan, canonical)
    rounding.runAt = 0
    rounding.size = 0
    try {
      roundAll(rounding)
      if (rounding.out === noBytes) return canonical
      copyRun(rounding, canonical.length, canonical.length)
      return rounding.out.subarray(0, rounding.size)
    } finally {
      endScan(rounding.scan)
      rounding.out = noBytes
    }
  }
}

const noBytes = Buffer.alloc(0)

function roundAll(rounding: Rounding): void {
  const { scan } = rounding
  const { bytes, length } = scan
  /** For each open container: the start of the last member name, and where that member begins in the output. */
  const nameAts: number[] = []
  const outAts: number[] = []
  for (let at = 0; at < length; ) {
    const byte = bytes[at]!
    if (byte === QUOTE) {
      const end = endOfString(scan, at + 1)
      if (bytes[end] === COLON) {
        const depth = nameAts.length - 1
        const lastAt = nameAts[depth]!
        if (lastAt !== NO_NAME && isSameString(bytes, lastAt, at, end)) dropFrom(rounding, outAts[depth]!, at)
        nameAts[depth] = at
        outAts[depth] = rounding.size + at - rounding.runAt
      }
      at = end
    } else if (byte === MINUS || (byte >= ZERO && byte <= NINE)) {
      at = roundNumber(rounding, at)
    } else {
      if (byte === OBJECT || byte === ARRAY) {
        nameAts.push(NO_NAME)
        outAts.push(0)
      } else if (byte === OBJECT_END || byte === ARRAY_END) {
        nameAts.pop()
        outAts.pop()
      }
      at++
    }
  }
}

/** Whether the string from `b` to `end` is the same as the one at `a`; both with quotes. */
function isSameString(bytes: Buffer, a: number, b: number, end: number): boolean {
  for (let i = 0; b + i < end; i++) if (bytes[a + i] !== bytes[b + i]) return false
  return true
}

/** Returns the end of the number at `from`. */
function roundNumber(rounding: Rounding, from: number): number {
  const { bytes, length } = rounding.scan
  let at = from
  let pointAt = 0
  let hasExponent = false
  for (; at < length; at++) {
    const byte = bytes[at]!
    if (byte === POINT) pointAt = at
    else if ((byte | 0x20) === EXPONENT) hasExponent = true
    else if ((byte < ZERO || byte > NINE) && byte !== MINUS && byte !== 0x2b) break
  }
  const isNegative = bytes[from] === MINUS
  // -0, or with zeros behind the point as well: 0.0 or 0.0000001, which is 1e-7.
  const isSmall =
    bytes[isNegative ? from + 1 : from] === ZERO && (pointAt === 0 ? isNegative : bytes[pointAt + 1] === ZERO)
  if (at - from > EXACT_BYTES || hasExponent || isSmall) respell(rounding, from, at)
  else if (pointAt > 0) dropZeros(rounding, pointAt, at)
  return at
}

/** Drops the zeros at the end of a fraction, with the point if nothing is left of it. */
function dropZeros(rounding: Rounding, pointAt: number, end: number): void {
  const { bytes } = rounding.scan
  let at = end
  while (bytes[at - 1] === ZERO) at--
  if (at - 1 === pointAt) at = pointAt
  if (at < end) copyRun(rounding, at, end)
}

function respell(rounding: Rounding, from: number, end: number): void {
  const sent = rounding.scan.bytes.toString('latin1', from, end)
  const text = JSON.stringify(Number(sent))
  if (text === sent) return
  copyRun(rounding, from, end)
  reserve(rounding, text.length)
  rounding.size += rounding.out.write(text, rounding.size, 'latin1')
}

/** Copies the run up to `end`. The next one starts at `nextAt`. */
function copyRun(rounding: Rounding, end: number, nextAt: number): void {
  reserve(rounding, end - rounding.runAt)
  rounding.size = copyBytes(rounding.scan.bytes, rounding.runAt, end, rounding.out, rounding.size)
  rounding.runAt = nextAt
}

/** Takes back the output from `outAt`. The next run starts at `nextAt`. */
function dropFrom(rounding: Rounding, outAt: number, nextAt: number): void {
  if (outAt > rounding.size) copyRun(rounding, rounding.runAt + outAt - rounding.size, nextAt)
  reserve(rounding, 0)
  rounding.size = outAt
  rounding.runAt = nextAt
}

/** A number that is spelled anew may be longer: 1e20 has 21 digits. */
function reserve(rounding: Rounding, bytes: number): void {
  const needed = rounding.size + bytes
  if (rounding.out !== noBytes && needed <= rounding.out.length) return
  const larger = Buffer.allocUnsafe(Math.max(rounding.scan.length, 2 * needed))
  rounding.out.copy(larger, 0, 0, rounding.size)
  rounding.out = larger
}
