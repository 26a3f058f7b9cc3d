/** Copies a range of bytes, at the least cost for its size. */

/** A native copy costs as much as this many bytes copied one by one. */
const SHORT_BYTES = 48

/** Copies `source` from `from` to `end` to the offset `at` of `target`. Returns the offset behind the copy. */
export function copyBytes(source: Buffer, from: number, end: number, target: Buffer, at: number): number {
  const size = end - from
  if (size > SHORT_BYTES) source.copy(target, at, from, end)
  else for (let i = 0; i < size; i++) target[at + i] = source[from + i]!
  return at + size
}
