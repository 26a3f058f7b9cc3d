/**
 * The state of one queue in the dispatcher: how many events it has had, and until when a take would find nothing. Every
 * function is pure. `nowMs` is monotonic (performance.now()); `dateMs` is ms since 1970, as BullMQ writes times.
 */
import type { QueueEvent } from '../events/queue-events.ts'
import type { TakeResult } from './leased-job.ts'

/** Counts the events that may let a take find a job. */
export interface QueueVersion {
  /** Events that make a job ready, now or later. */
  readonly ready: number
  /** Events by which a job stops being active. They matter where the number of active jobs is limited. */
  readonly left: number
}

export interface QueueDispatchState {
  readonly version: QueueVersion
  /** A take finds nothing before this time; 0: take now. */
  readonly quietUntilMs: number
  /** A limit on active jobs may hold jobs back, so every job that ends may let a take find one. */
  readonly isBounded: boolean
  /** The last take met the limit of its own worker, so other workers may find jobs. */
  readonly isLimitReached: boolean
}

/** A take that returned no jobs. */
export interface EmptyTake {
  taken: TakeResult
  /** The version before the take was sent. */
  version: QueueVersion
}

/** How often a queue with a live event feed is tried without an event: no event reports a raised limit. */
const FALLBACK_MS = 60_000
/** How often a queue without a live event feed is tried. */
const FALLBACK_DEGRADED_MS = 900

const READY_EVENTS = new Set(['waiting', 'resumed', 'stalled'])
const LEFT_EVENTS = new Set(['completed', 'failed', 'delayed', 'waiting-children', 'removed'])

export const INITIAL_DISPATCH_STATE: QueueDispatchState = {
  version: { ready: 0, left: 0 },
  quietUntilMs: 0,
  isBounded: false,
  isLimitReached: false,
}

/** A job may be ready: an event says so, jobs were enqueued here, or events may have been missed. */
export function afterNotification(state: QueueDispatchState): QueueDispatchState {
  const { ready, left } = state.version
  return { ...state, version: { ready: ready + 1, left }, quietUntilMs: 0 }
}

/** Returns the same object for an event that lets no take find a job. */
export function afterEvent(
  state: QueueDispatchState,
  { event, fields }: Pick<QueueEvent, 'event' | 'fields'>,
  nowMs: number,
  dateMs: number,
): QueueDispatchState {
  if (READY_EVENTS.has(event)) return afterNotification(state)
  if (!LEFT_EVENTS.has(event)) return state
  const { ready, left } = state.version
  const quietUntilMs = state.isBounded ? 0 : state.quietUntilMs
  if (event !== 'delayed') return { ...state, version: { ready, left: left + 1 }, quietUntilMs }
  // BullMQ's `delay` is the time at which the job is due. A take in progress may have missed the job, hence `ready`.
  const dueInMs = Math.max(1, Number(fields['delay']) - dateMs || 0)
  return {
    ...state,
    version: { ready: ready + 1, left: left + 1 },
    quietUntilMs: Math.min(quietUntilMs, nowMs + dueInMs),
  }
}

/**
 * Unless something happened since the take was sent, or it ended early, the queue is quiet until a job is due or a limit ends.
 */
export function afterEmptyTake(
  state: QueueDispatchState,
  { taken, version }: EmptyTake,
  isLive: boolean,
  nowMs: number,
  dateMs: number,
): QueueDispatchState {
  const { limitedMs, nextAtMs, isLimitReached, mayHaveMore } = taken
  const next = { ...state, isBounded: taken.isBounded || isLimitReached, isLimitReached }
  if (mayHaveMore) return { ...next, quietUntilMs: 0 }
  if (hasChangedSince(next, version)) return next
  const fallbackMs = isLive ? FALLBACK_MS : FALLBACK_DEGRADED_MS
  const dueInMs = nextAtMs > 0 ? Math.max(1, nextAtMs - dateMs) : fallbackMs
  const quietMs = Math.min(fallbackMs, dueInMs, limitedMs > 0 ? limitedMs : fallbackMs)
  return { ...next, quietUntilMs: nowMs + quietMs }
}

/** Tries again soon, since Redis may be back before the pending takes time out. */
export function afterFailedTake(state: QueueDispatchState, nowMs: number): QueueDispatchState {
  return { ...state, quietUntilMs: nowMs + FALLBACK_DEGRADED_MS }
}

/** Whether a take that was sent at `version` may have missed a job. */
export function hasChangedSince(
  { version: { ready, left }, isBounded }: QueueDispatchState,
  version: QueueVersion,
): boolean {
  return ready !== version.ready || (isBounded && left !== version.left)
}

/** Whether a new take has to wait: other takes are pending, or it would find nothing. */
export function mustQueue(
  { isLimitReached, quietUntilMs }: QueueDispatchState,
  pendingCount: number,
  nowMs: number,
): boolean {
  return !isLimitReached && (pendingCount > 0 || quietUntilMs > nowMs)
}

/** Time until the pending takes should be served, ms. */
export function nextServeMs({ quietUntilMs }: QueueDispatchState, nowMs: number): number {
  return Math.max(0, Math.ceil(quietUntilMs - nowMs))
}
