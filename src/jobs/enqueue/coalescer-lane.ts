/**
 * A lane of the coalescer: the waiting batches of one queue, and how many are in flight. These are its transitions, without
 * timers, promises or I/O. They change the lane in place: a copy for every job would be the coalescer's largest cost.
 */

export interface Batch<Entry> {
  entries: Entry[]
  bytes: number
}

export interface Lane<Entry> {
  readonly name: string
  /** Oldest first. Only the last takes further entries. */
  readonly waiting: Batch<Entry>[]
  batchesInFlight: number
  entriesInFlight: number
  /** Cancels the send that is scheduled for the end of the tick, or of the delay. */
  cancelScheduled: (() => void) | undefined
}

export interface LaneLimits {
  /** Most entries in a batch; 1: every entry is sent alone. */
  batchMax: number
  /** A batch with this many entries is sent before the end of the tick. */
  batchSoon: number
  /** Most bytes in a batch. A larger entry is sent alone. */
  batchBytes: number
  /** Most batches of a lane in flight. */
  inFlightMax: number
}

export function createLane<Entry>(name: string): Lane<Entry> {
  return { name, waiting: [], batchesInFlight: 0, entriesInFlight: 0, cancelScheduled: undefined }
}

/** Adds the entry to the last waiting batch, or to a new one if that is full. */
export function putEntry<Entry>(lane: Lane<Entry>, entry: Entry, bytes: number, limits: LaneLimits): void {
  let batch = lane.waiting.at(-1)
  if (!batch || batch.entries.length >= limits.batchMax || batch.bytes + bytes > limits.batchBytes) {
    batch = { entries: [], bytes: 0 }
    lane.waiting.push(batch)
  }
  batch.entries.push(entry)
  batch.bytes += bytes
}

/**
 * The next step after entries were added: `send` the oldest batches at once, `schedule` a send, or `wait` for the scheduled
 * send or, in a saturated lane, for a batch to return.
 */
export function nextStep<Entry>(lane: Lane<Entry>, limits: LaneLimits): 'send' | 'schedule' | 'wait' {
  if (lane.batchesInFlight >= limits.inFlightMax) return 'wait'
  if (lane.waiting[0]!.entries.length >= Math.min(limits.batchSoon, limits.batchMax)) return 'send'
  return lane.cancelScheduled === undefined ? 'schedule' : 'wait'
}

/** Puts the oldest waiting batch in flight. `undefined`: none waits, or the lane is saturated. */
export function takeBatch<Entry>(lane: Lane<Entry>, limits: LaneLimits): Batch<Entry> | undefined {
  if (lane.batchesInFlight >= limits.inFlightMax) return undefined
  const batch = lane.waiting.shift()
  if (batch) {
    lane.batchesInFlight++
    lane.entriesInFlight += batch.entries.length
  }
  return batch
}

/** The batch has returned, with results or an error. */
export function settleBatch<Entry>(lane: Lane<Entry>, batch: Batch<Entry>): void {
  lane.batchesInFlight--
  lane.entriesInFlight -= batch.entries.length
}

/** Nothing waits, is scheduled or is in flight: the lane can be dropped. */
export function isIdle<Entry>(lane: Lane<Entry>): boolean {
  return lane.waiting.length === 0 && lane.batchesInFlight === 0 && lane.cancelScheduled === undefined
}

/** Entries that wait or are in flight. */
export function entryCount<Entry>(lane: Lane<Entry>): number {
  return lane.entriesInFlight + lane.waiting.reduce((sum, batch) => sum + batch.entries.length, 0)
}
