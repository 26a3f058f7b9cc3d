/**
 * How many entries of each stream the next read may return. Redis limits a read by entries, not by bytes, and BullMQ copies
 * each job's result into its stream. So reads start small, grow while they return full batches of small entries, and shrink
 * when a reply was large.
 */

/** Most entries of one stream in one read. */
export const MAX_ENTRIES = 1_000

/** Most entries of one stream in the first read, of which the sizes are not known. */
const FIRST_ENTRIES = 50

const GROWTH = 4

export interface ReplySize {
  bytes: number
  /** Entries of the stream with the most. */
  entryCount: number
}

/** For the first read on a connection. All streams together may have changed meanwhile. */
export function firstCount(streamCount: number): number {
  return Math.max(1, Math.min(FIRST_ENTRIES, Math.floor(MAX_ENTRIES / Math.max(1, streamCount))))
}

/** `count`: that of the read with this reply. */
export function nextCount(count: number, { bytes, entryCount }: ReplySize, bytesMax: number): number {
  if (bytes > bytesMax) return Math.max(1, Math.floor((count * bytesMax) / bytes / 2))
  if (entryCount < count) return Math.max(Math.min(count, FIRST_ENTRIES), Math.floor(count * 0.9))
  return bytes * GROWTH > bytesMax ? count : Math.min(MAX_ENTRIES, count * GROWTH)
}

/** In UTF-16 units, which is close enough. */
export function sizeOfReply(
  reply: readonly [key: string, entries: [id: string, fields: string[]][]][],
): ReplySize {
  let bytes = 0
  let entryCount = 0
  for (const [, entries] of reply) {
    entryCount = Math.max(entryCount, entries.length)
    for (const [, fields] of entries) for (const field of fields) bytes += field.length
  }
  return { bytes, entryCount }
}
