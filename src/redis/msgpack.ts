/**
 * A msgpack encoder for texts. Libraries encode a Buffer as "bin", which Redis' cmsgpack cannot read; here
 * texts and buffers alike become str 32 (0xdb), and a missing value becomes false (0xc2).
 */

/**
 * Writes `value` at offset `at` and returns the offset behind it. The caller reserves 5 bytes more than the
 * value's UTF-8.
 */
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

/** Encodes one array of texts. */
export function packTexts(values: string[]): Buffer {
  // A UTF-16 unit takes at most three bytes in UTF-8.
  const packed = Buffer.allocUnsafe(values.reduce((size, value) => size + 5 + 3 * value.length, 5))
  let at = packed.writeUInt8(0xdd, 0)
  at = packed.writeUInt32BE(values.length, at)
  for (const value of values) at = putText(packed, at, value)
  return packed.subarray(0, at)
}
