/** What enqueue.lua is sent: the jobs of a batch, in the order in which they came. */
import type { EncodedOptions } from '../../bullmq/job-encoder.ts'
import { putText } from './msgpack.ts'

export interface IdempotencyRecord {
  /** Of Redis. */
  key: string
  /** 22 characters; equal for equal payloads, whatever the order of their fields. */
  fingerprint: string
}

export interface EnqueueItem {
  key: string
  /** The client chose the key, so a job that has it already is another's. A key of ours can only be our own, re-sent. */
  chosen: boolean
  name: string
  timestamp: number
  deduplicationId: string | undefined
  /** Where and what the idempotency key of the client is written as. */
  idempotency: IdempotencyRecord | undefined
  /** JSON text. */
  data: string
  options: EncodedOptions
}

/** As enqueue.lua has them. */
const VALUES_PER_JOB = 10

/** Data longer than this, in UTF-16 units, is an argument of its own: it costs less than being copied twice more. */
const LARGE = 2_048

export interface EnqueueMessage {
  /** What is said of the jobs. */
  packed: Buffer
  /** The data of those that have much, in their order. */
  large: string[]
}

/**
 * The jobs as arguments of enqueue.lua: one msgpack array in one buffer, since each argument of a command has its price.
 * Written by hand because Redis' cmsgpack knows no "bin", which is what libraries make of a Buffer: here texts are str 32
 * (0xdb), the array an array 32 (0xdd), times float 64 (0xcb), and 0xc2 is false.
 */
export function packEnqueueItems(items: EnqueueItem[]): EnqueueMessage {
  const large: string[] = []
  let size = 5
  for (const { key, name, deduplicationId = '', idempotency, data, options } of items) {
    // Two small numbers, a time, seven texts; a UTF-16 unit is three bytes at most.
    size += 2 + 9 + 7 * 5 + key.length + 3 * (name.length + deduplicationId.length) + options.packed.length
    if (idempotency) size += idempotency.key.length + idempotency.fingerprint.length
    if (data.length <= LARGE) size += Buffer.byteLength(data)
    else large.push(data)
  }
  const packed = Buffer.allocUnsafe(size)
  let at = packed.writeUInt8(0xdd, 0)
  at = packed.writeUInt32BE(items.length * VALUES_PER_JOB, at)
  const put = (value: string | Buffer | undefined) => {
    at = putText(packed, at, value)
  }
  let before: EncodedOptions | undefined
  for (const { key, chosen, name, timestamp, deduplicationId, idempotency, data, options } of items) {
    packed[at++] = options.kind
    packed[at++] = chosen ? 1 : 0
    put(key)
    put(name)
    packed[at++] = 0xcb
    at = packed.writeDoubleBE(timestamp, at)
    put(deduplicationId)
    put(data.length <= LARGE ? data : undefined)
    put(options === before ? undefined : options.packed)
    put(idempotency?.key)
    put(idempotency?.fingerprint)
    before = options
  }
  return { packed: packed.subarray(0, at), large }
}
