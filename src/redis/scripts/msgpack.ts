/**
 * Texts in msgpack, by hand: Redis' cmsgpack knows no "bin", which is what libraries make of a Buffer, so texts and
 * buffers alike are str 32 (0xdb), and what is missing is false (0xc2).
 */

/** Writes at `at`, for which there must be room, and returns where it ends. */
export function putText(packed: Buffer, at: number, value: string | Buffer | undefined): number {
  if (value === undefined) {
    packed[at] = 0xc2
    return at + 1
  }
  const start = at + 5
  const length = typeof value === 'string' ? packed.write(value, start) : value.copy(packed, start)
  packed[at] = 0xdb
  packed.writeUInt32BE(length, at + 1)
  return start + length
}

/** One array of texts. */
export function packTexts(values: string[]): Buffer {
  // A UTF-16 unit is three bytes at most.
  const packed = Buffer.allocUnsafe(values.reduce((size, value) => size + 5 + 3 * value.length, 5))
  let at = packed.writeUInt8(0xdd, 0)
  at = packed.writeUInt32BE(values.length, at)
  for (const value of values) at = putText(packed, at, value)
  return packed.subarray(0, at)
}
