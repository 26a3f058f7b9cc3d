/** Makes the small text of a body: a placeholder instead of each value that stays text. */

/** A placeholder may be longer than its value; the index of a range has at most this many digits. */
const PLACEHOLDER_BYTES = 10
/** A native copy costs as much as this many bytes copied one by one. */
const SHORT_BYTES = 48
/** A larger scratch is not kept. */
const SCRATCH_BYTES = 256 * 1024

/** Holds the bytes of a small text while it is made; reused. */
export interface Scratch {
  bytes: Buffer
}

/** `ranges`: as in ScannedBody, in document order. `from`: the start of the JSON in the body. */
export function smallText(
  body: Buffer,
  from: number,
  ranges: readonly number[],
  encoding: 'latin1' | 'utf8',
  scratch: Scratch,
): string {
  if (ranges.length === 0) return body.toString(encoding, from)
  if (ranges.length === 3)
    return `${body.toString(encoding, from, ranges[0]!)}0${body.toString(encoding, ranges[1]!)}`
  const size = assemble(body, from, ranges, scratch)
  const text = scratch.bytes.toString(encoding, 0, size)
  if (scratch.bytes.length > SCRATCH_BYTES) scratch.bytes = Buffer.alloc(0)
  return text
}

/** Writes the small text into the scratch. Returns its size. */
function assemble(body: Buffer, from: number, ranges: readonly number[], scratch: Scratch): number {
  let needed = body.length
  for (let i = 0; i < ranges.length; i += 3) needed += PLACEHOLDER_BYTES - (ranges[i + 1]! - ranges[i]!)
  if (scratch.bytes.length < needed) scratch.bytes = Buffer.allocUnsafeSlow(needed)
  const { bytes } = scratch
  let size = 0
  let at = from
  for (let i = 0; i < ranges.length; i += 3) {
    size = copy(body, at, ranges[i]!, bytes, size)
    size = writeDigits(bytes, size, i / 3)
    at = ranges[i + 1]!
  }
  return copy(body, at, body.length, bytes, size)
}

function copy(source: Buffer, from: number, end: number, target: Buffer, at: number): number {
  const size = end - from
  if (size > SHORT_BYTES) source.copy(target, at, from, end)
  else for (let i = 0; i < size; i++) target[at + i] = source[from + i]!
  return at + size
}

function writeDigits(bytes: Buffer, from: number, index: number): number {
  let scale = 1
  while (scale * 10 <= index) scale *= 10
  let at = from
  for (let rest = index; scale >= 1; scale /= 10) {
    const digit = Math.floor(rest / scale)
    bytes[at++] = 0x30 + digit
    rest -= digit * scale
  }
  return at
}
