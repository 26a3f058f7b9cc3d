/**
 * Sends items that arrive together as one batch. Each lane (a queue) is in one of these states:
 *
 *   idle ── add ──→ gathering ── end of tick, batchSoon items or delayMs ──→ sending ── inFlightMax batches ──→ saturated
 *
 * A saturated lane lets its open batch grow and sends it when a batch returns, so batches grow with the load, and a lone item
 * waits only for the end of the tick. The transitions are in coalescer-lane.ts; this file owns promises, timers and totals.
 */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import {
  type Batch,
  createLane,
  entryCount,
  isIdle,
  type Lane,
  type LaneLimits,
  nextStep,
  putEntry,
  settleBatch,
  takeBatch,
} from './coalescer-lane.ts'

export interface CoalescerOptions<Item, Result> extends LaneLimits {
  /** How long a batch gathers items; 0: until the end of the tick. */
  delayMs: number
  /** Most items that wait, in all lanes; beyond it `add` throws OVERLOADED. */
  waitingMax: number
  /** Follows the number of items in that error's text: `jobs wait to be written to Redis`. */
  waitingFor: string
  /**
   * Sends a batch and resolves with the result or error of each item, in order; a promise for an item whose result comes
   * later. A rejection fails every item.
   */
  send(lane: string, items: Item[]): Promise<(Result | Promise<Result> | Error)[]>
}

export interface Coalescer<Item, Result> {
  /** Batches of a lane are sent in the order of arrival. Throws OVERLOADED. */
  add(lane: string, item: Item, bytes: number): Promise<Result>
  /** The items keep their order and may share batches with others. Accepts all or none; if none, each promise rejects. */
  addMany(lane: string, items: { item: Item; bytes: number }[]): Promise<Result>[]
  stats(): CoalescerStats
  /** Sends all waiting items, and resolves when every item has its result. */
  close(): Promise<void>
}

/** The property `batching` of GET /stats. */
export interface CoalescerStats {
  /** Batches that wait or are in flight. */
  activeBatches: number
  /** Jobs that wait. */
  totalQueuedJobs: number
  /** Jobs that wait or are in flight, by queue. */
  batchesByType: Record<string, number>
  batchesSent: number
  jobsSent: number
  meanBatchSize: number
}

interface Entry<Item, Result> {
  item: Item
  resolve(result: Result | Promise<Result>): void
  reject(error: unknown): void
}

export function createCoalescer<Item, Result>(
  options: CoalescerOptions<Item, Result>,
): Coalescer<Item, Result> {
  type ItemLane = Lane<Entry<Item, Result>>
  const { delayMs, waitingMax, waitingFor, send } = options
  const lanes = new Map<string, ItemLane>()
  const lanesAtEndOfTick = new Set<ItemLane>()
  const sends = new Set<Promise<void>>()
  const totals = { waiting: 0, batchesSent: 0, itemsSent: 0 }

  function put(lane: ItemLane, item: Item, bytes: number): Promise<Result> {
    return new Promise((resolve, reject) => {
      putEntry(lane, { item, resolve, reject }, bytes, options)
      totals.waiting++
    })
  }

  function sendOrSchedule(lane: ItemLane): void {
    const step = nextStep(lane, options)
    if (step === 'send') {
      lane.cancelScheduled?.()
      sendWaiting(lane)
    } else if (step === 'schedule') {
      lane.cancelScheduled = scheduleSend(lane)
    }
  }

  function scheduleSend(lane: ItemLane): () => void {
    if (delayMs > 0) {
      const timeout = setTimeout(sendWaiting, delayMs, lane)
      return () => clearTimeout(timeout)
    }
    // One callback sends every lane, so that their commands can share one write to the socket.
    if (lanesAtEndOfTick.size === 0) setImmediate(sendAtEndOfTick)
    lanesAtEndOfTick.add(lane)
    return () => lanesAtEndOfTick.delete(lane)
  }

  function sendAtEndOfTick(): void {
    const due = [...lanesAtEndOfTick]
    lanesAtEndOfTick.clear()
    for (const lane of due) sendWaiting(lane)
  }

  function sendWaiting(lane: ItemLane): void {
    lane.cancelScheduled = undefined
    for (let batch = takeBatch(lane, options); batch; batch = takeBatch(lane, options)) sendBatch(lane, batch)
  }

  function sendBatch(lane: ItemLane, batch: Batch<Entry<Item, Result>>): void {
    const { entries } = batch
    totals.waiting -= entries.length
    totals.batchesSent++
    totals.itemsSent += entries.length
    const items = entries.map((entry) => entry.item)
    const sending = send(lane.name, items)
      .then(
        (results) => settleEach(entries, results),
        (error: unknown) => rejectAll(entries, error),
      )
      .then(() => {
        sends.delete(sending)
        settleBatch(lane, batch)
        if (lane.waiting.length > 0) sendWaiting(lane)
        else if (isIdle(lane)) lanes.delete(lane.name)
      })
    sends.add(sending)
  }

  function add(name: string, item: Item, bytes: number): Promise<Result> {
    if (totals.waiting >= waitingMax) throw overloaded(totals.waiting, waitingFor, waitingMax)
    const lane = openLane(lanes, name)
    const result = put(lane, item, bytes)
    sendOrSchedule(lane)
    return result
  }

  function addMany(name: string, items: { item: Item; bytes: number }[]): Promise<Result>[] {
    if (items.length === 0) return []
    if (totals.waiting + items.length > waitingMax) {
      const error = overloaded(totals.waiting, waitingFor, waitingMax)
      return items.map(() => Promise.reject(error))
    }
    const lane = openLane(lanes, name)
    const results = items.map(({ item, bytes }) => put(lane, item, bytes))
    sendOrSchedule(lane)
    return results
  }

  async function close(): Promise<void> {
    for (const lane of lanes.values()) sendWaiting(lane)
    while (sends.size > 0) await Promise.all(sends)
  }

  return { add, addMany, stats: () => describe([...lanes.values()], totals), close }
}

function openLane<E>(lanes: Map<string, Lane<E>>, name: string): Lane<E> {
  let lane = lanes.get(name)
  if (!lane) {
    lane = createLane(name)
    lanes.set(name, lane)
  }
  return lane
}

function settleEach<Item, Result>(
  entries: Entry<Item, Result>[],
  results: (Result | Promise<Result> | Error)[],
): void {
  for (let i = 0; i < entries.length; i++) {
    const result = results[i]!
    if (result instanceof Error) entries[i]!.reject(result)
    else entries[i]!.resolve(result)
  }
}

function rejectAll<Item, Result>(entries: Entry<Item, Result>[], error: unknown): void {
  for (const entry of entries) entry.reject(error)
}

function overloaded(waiting: number, waitingFor: string, waitingMax: number): SluiceError {
  return new SluiceError('OVERLOADED', {
    detail: `${waiting} ${waitingFor}, and the limit is ${waitingMax}. ${REPEAT_LATER}`,
    outcome: 'not_executed',
    retryAfterS: 1,
  })
}

function describe(
  lanes: Lane<unknown>[],
  { waiting, batchesSent, itemsSent }: { waiting: number; batchesSent: number; itemsSent: number },
): CoalescerStats {
  return {
    activeBatches: lanes.reduce((sum, lane) => sum + lane.batchesInFlight + lane.waiting.length, 0),
    totalQueuedJobs: waiting,
    batchesByType: Object.fromEntries(lanes.map((lane) => [lane.name, entryCount(lane)])),
    batchesSent,
    jobsSent: itemsSent,
    meanBatchSize: batchesSent === 0 ? 0 : Math.round((itemsSent / batchesSent) * 100) / 100,
  }
}
