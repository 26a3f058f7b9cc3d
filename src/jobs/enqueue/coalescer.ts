/**
 * Things that arrive together leave together. Each lane (a queue) has batches that wait and batches in flight:
 *
 *   add → open batch → [end of the tick, or BATCH_SOON items, or BATCH_DELAY ms] → in flight (≤ 4) → results
 *
 * A lone item waits for nothing but the end of the tick. While all flights are out, the open batch grows; when one
 * returns, the next leaves at once. So batches are as large as the load makes them, and Redis works while Node reads.
 * Batches of a lane leave in the order of arrival.
 */
import { SluiceError } from '../../errors.ts'

export interface CoalescerOptions<Item, Result> {
  /** Most items in a batch; 1: every item goes alone. */
  batchMax: number
  /** Items at which a batch leaves before the end of the tick. */
  batchSoon: number
  /** Sum of sizes at which a batch takes no more. */
  batchBytes: number
  delayMs: number
  inFlightMax: number
  /** Items not yet sent, of all lanes; past it `add` throws OVERLOADED. */
  waitingMax: number
  /** What waits for what, for that error: `jobs wait to be written to Redis`. */
  waitingFor: string
  /** Sends a batch; for each item, in order, its result or its error. A rejection is every item's. */
  send(lane: string, items: Item[]): Promise<(Result | Error)[]>
}

export interface Coalescer<Item, Result> {
  add(lane: string, item: Item, bytes: number): Promise<Result>
  /** They keep their order and may share batches with others. All or none are accepted; if none, each promise says so. */
  addMany(lane: string, items: { item: Item; bytes: number }[]): Promise<Result>[]
  stats(): CoalescerStats
  /** Resolves when everything that was added has been answered. */
  close(): Promise<void>
}

/** The first three names are those of the field reports. */
export interface CoalescerStats {
  activeBatches: number
  totalQueuedJobs: number
  /** Jobs that wait or are in flight, by queue. */
  batchesByType: Record<string, number>
  batchesSent: number
  jobsSent: number
  meanBatchSize: number
}

interface Entry<Item, Result> {
  item: Item
  resolve(result: Result): void
  reject(error: unknown): void
}

interface Batch<Item, Result> {
  entries: Entry<Item, Result>[]
  bytes: number
}

interface Lane<Item, Result> {
  name: string
  waiting: Batch<Item, Result>[]
  inFlight: number
  jobsInFlight: number
  /** Takes back what was scheduled for the end of the tick (or of the delay). */
  scheduled: (() => void) | undefined
}

export function createCoalescer<Item, Result>(
  options: CoalescerOptions<Item, Result>,
): Coalescer<Item, Result> {
  const { batchMax, batchSoon, batchBytes, delayMs, inFlightMax, waitingMax, waitingFor, send } = options
  const lanes = new Map<string, Lane<Item, Result>>()
  const endOfTick = new Set<Lane<Item, Result>>()
  const unanswered = new Set<Promise<unknown>>()
  let waitingJobs = 0
  let batchesSent = 0
  let jobsSent = 0

  function laneOf(name: string): Lane<Item, Result> {
    let lane = lanes.get(name)
    if (!lane) {
      lane = { name, waiting: [], inFlight: 0, jobsInFlight: 0, scheduled: undefined }
      lanes.set(name, lane)
    }
    return lane
  }

  function admit(count: number): void {
    if (waitingJobs + count <= waitingMax) return
    throw new SluiceError('OVERLOADED', {
      detail: `${waitingJobs} ${waitingFor}, and ${waitingMax} is the most. Repeat after Retry-After.`,
      outcome: 'not_executed',
      retryAfterS: 1,
    })
  }

  function put(lane: Lane<Item, Result>, item: Item, bytes: number): Promise<Result> {
    return new Promise((resolve, reject) => {
      let batch = lane.waiting.at(-1)
      if (!batch || batch.entries.length >= batchMax || batch.bytes + bytes > batchBytes) {
        batch = { entries: [], bytes: 0 }
        lane.waiting.push(batch)
      }
      batch.entries.push({ item, resolve, reject })
      batch.bytes += bytes
      waitingJobs++
    })
  }

  function leave(lane: Lane<Item, Result>): void {
    lane.scheduled = undefined
    while (lane.inFlight < inFlightMax) {
      const batch = lane.waiting.shift()
      if (!batch) break
      fly(lane, batch)
    }
  }

  function schedule(lane: Lane<Item, Result>): void {
    if (lane.inFlight >= inFlightMax) return
    if (lane.waiting[0]!.entries.length >= Math.min(batchSoon, batchMax)) {
      lane.scheduled?.()
      leave(lane)
    } else if (lane.scheduled === undefined) {
      lane.scheduled = later(lane)
    }
  }

  function later(lane: Lane<Item, Result>): () => void {
    if (delayMs > 0) {
      const timeout = setTimeout(leave, delayMs, lane)
      return () => clearTimeout(timeout)
    }
    // All lanes leave in one callback, so that their commands can be one write to the socket.
    if (endOfTick.size === 0) setImmediate(leaveAll)
    endOfTick.add(lane)
    return () => endOfTick.delete(lane)
  }

  function leaveAll(): void {
    const lanesNow = [...endOfTick]
    endOfTick.clear()
    for (const lane of lanesNow) leave(lane)
  }

  function fly(lane: Lane<Item, Result>, batch: Batch<Item, Result>): void {
    const { entries } = batch
    lane.inFlight++
    lane.jobsInFlight += entries.length
    waitingJobs -= entries.length
    batchesSent++
    jobsSent += entries.length
    const items = entries.map((entry) => entry.item)
    const flight = send(lane.name, items)
      .then(
        (results) => {
          for (let i = 0; i < entries.length; i++) {
            const result = results[i]!
            if (result instanceof Error) entries[i]!.reject(result)
            else entries[i]!.resolve(result)
          }
        },
        (error: unknown) => {
          for (const entry of entries) entry.reject(error)
        },
      )
      .then(() => {
        unanswered.delete(flight)
        lane.inFlight--
        lane.jobsInFlight -= entries.length
        if (lane.waiting.length > 0) leave(lane)
        else if (lane.inFlight === 0 && lane.scheduled === undefined) lanes.delete(lane.name)
      })
    unanswered.add(flight)
  }

  return {
    add(name, item, bytes) {
      admit(1)
      const lane = laneOf(name)
      const result = put(lane, item, bytes)
      schedule(lane)
      return result
    },
    addMany(name, items) {
      if (items.length === 0) return []
      try {
        admit(items.length)
      } catch (error) {
        return items.map(() => Promise.reject(error))
      }
      const lane = laneOf(name)
      const results = items.map(({ item, bytes }) => put(lane, item, bytes))
      schedule(lane)
      return results
    },
    stats() {
      const busy = [...lanes.values()]
      return {
        activeBatches: busy.reduce((sum, lane) => sum + lane.inFlight + lane.waiting.length, 0),
        totalQueuedJobs: waitingJobs,
        batchesByType: Object.fromEntries(
          busy.map((lane) => [
            lane.name,
            lane.jobsInFlight + lane.waiting.reduce((sum, batch) => sum + batch.entries.length, 0),
          ]),
        ),
        batchesSent,
        jobsSent,
        meanBatchSize: batchesSent === 0 ? 0 : Math.round((jobsSent / batchesSent) * 100) / 100,
      }
    },
    async close() {
      for (const lane of lanes.values()) leave(lane)
      while (unanswered.size > 0) await Promise.all(unanswered)
    },
  }
}
