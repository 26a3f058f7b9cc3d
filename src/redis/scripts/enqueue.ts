/** Adds a batch of jobs to one queue: the one caller of enqueue.lua. enqueue-layout.ts has the constants of both. */
import type { Redis } from 'ioredis'
import type { EncodedOptions } from '../../bullmq/job-encoder.ts'
import type { JobState } from '../../bullmq/job-states.ts'
import { putText } from '../msgpack.ts'
import { enqueueConstants, jobValues, replyCodes } from './enqueue-layout.ts'
import { loadScript, runScript } from './run-script.ts'

export interface IdempotencyRecord {
  /** The Redis key of the record. */
  key: string
  /** 22 characters; equal for equal payloads, whatever the order of their fields. */
  fingerprint: string
  /** That of the payload with its numbers rounded, which versions up to 0.1 compare. Mostly the same. */
  roundedFingerprint: string
}

export interface EnqueueItem {
  key: string
  /** The client chose the key, so another request may have used it. A generated key can exist only if this command ran twice. */
  isKeyChosen: boolean
  name: string
  /** Milliseconds since 1970. */
  timestamp: number
  deduplicationId: string | undefined
  idempotency: IdempotencyRecord | undefined
  /** JSON text. */
  data: Buffer
  options: EncodedOptions
}

export type EnqueueResult =
  | { kind: 'created' }
  /** Nothing was stored. The job that exists has the same key or deduplication id, or is that of the idempotency record. */
  | ({ kind: 'duplicate' | 'replayed' } & ExistingJob)
  /** The idempotency record has another fingerprint. Nothing was stored. */
  | { kind: 'keyReused' }
  /** The text of Redis' error. Whatever the script had written for this job was removed. */
  | { kind: 'failed'; error: string }

/** `null`: unknown, because the job no longer exists (`state` also where the queue is damaged). */
export interface ExistingJob {
  key: string
  name: string | null
  state: JobState | null
  /** Milliseconds since 1970. */
  timestamp: number | null
}

type Reply =
  | typeof replyCodes.CREATED
  | [
      code: typeof replyCodes.DUPLICATE | typeof replyCodes.REPLAYED,
      key: string,
      state?: JobState | null,
      name?: string | null,
      timestamp?: string | null,
    ]
  | [code: typeof replyCodes.FAILED, error: string]
  | [code: typeof replyCodes.KEY_REUSED]

const script = loadScript('enqueue', enqueueConstants)

/**
 * Adds `items` to the queue whose keys start with `base` (`bull:emails:`), and resolves with one result for each, in
 * order. Idempotency records expire after `recordTtlMs`. One command; rejects as Redis does, and then any of the jobs may
 * have been stored.
 */
export function enqueueJobs(
  client: Redis,
  base: string,
  items: EnqueueItem[],
  recordTtlMs: number,
): Promise<EnqueueResult[]> {
  const { packed, large } = packJobs(items)
  return runScript(client, script, [`${base}meta`], [base, packed, recordTtlMs, ...large]).then(readReplies)
}

/** Data longer than this, in bytes, are an argument of their own, which spares Redis two copies. */
const LARGE_DATA = 2_048

/** In msgpack, as msgpack.ts writes it: two small integers, a float 64, and the header of every other value, a text. */
const FIXED_BYTES_PER_JOB = 1 + 1 + 9 + (jobValues.length - 3) * 5

/**
 * Packs the jobs into one msgpack array, because every argument of a command has a cost: a value for each of
 * {@link jobValues}, job after job. `large` are the data that are not in it, in order. Options equal to those of the job
 * before are left out.
 */
export function packJobs(items: EnqueueItem[]): { packed: Buffer; large: Buffer[] } {
  const large: Buffer[] = []
  let size = 5
  for (const { key, name, deduplicationId = '', idempotency, data, options } of items) {
    // A UTF-16 unit is three bytes at most. Keys are ASCII.
    size += FIXED_BYTES_PER_JOB + key.length + 3 * (name.length + deduplicationId.length)
    size += options.packed.length
    if (idempotency) size += idempotency.key.length + 2 * idempotency.fingerprint.length
    if (data.length <= LARGE_DATA) size += data.length
    else large.push(data)
  }
  const packed = Buffer.allocUnsafe(size)
  let at = packed.writeUInt8(0xdd, 0)
  at = packed.writeUInt32BE(items.length * jobValues.length, at)
  const put = (value: string | Buffer | undefined) => {
    at = putText(packed, at, value)
  }
  let lastOptions: EncodedOptions | undefined
  for (const { key, isKeyChosen, name, timestamp, deduplicationId, idempotency, data, options } of items) {
    packed[at++] = options.kind
    packed[at++] = isKeyChosen ? 1 : 0
    put(key)
    put(name)
    packed[at++] = 0xcb
    at = packed.writeDoubleBE(timestamp, at)
    put(deduplicationId)
    put(data.length <= LARGE_DATA ? data : undefined)
    put(options === lastOptions ? undefined : options.packed)
    put(idempotency?.key)
    put(idempotency?.fingerprint)
    put(idempotency?.roundedFingerprint)
    lastOptions = options
  }
  return { packed: packed.subarray(0, at), large }
}

function readReplies(replies: unknown): EnqueueResult[] {
  return (replies as Reply[]).map(readReply)
}

/** Shared: nearly every job has this result. */
const created: EnqueueResult = { kind: 'created' }
const keyReused: EnqueueResult = { kind: 'keyReused' }

export function readReply(reply: Reply): EnqueueResult {
  if (reply === replyCodes.CREATED) return created
  if (reply[0] === replyCodes.KEY_REUSED) return keyReused
  if (reply[0] === replyCodes.FAILED) return { kind: 'failed', error: reply[1] }
  const [code, key, state, name, timestamp] = reply
  return {
    kind: code === replyCodes.REPLAYED ? 'replayed' : 'duplicate',
    key,
    name: name ?? null,
    state: state ?? null,
    timestamp: timestamp == null ? null : Number(timestamp),
  }
}
