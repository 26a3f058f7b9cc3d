/**
 * The state of a client that follows a job or a queue, as functions of a plain value. The client is
 *
 *   catching up  new events are buffered until it has received the earlier ones
 *   in a gap     catching up, and events may be missing: it needs a `gap` and a snapshot first
 *   live         events are sent as they arrive
 *
 *   catching up ─ goLive → live ─ receiveGap → in a gap ─ takeGap → catching up
 *              └ receiveGap, or more events than it may buffer → in a gap
 */
import { isAfter } from '../redis/streams/stream-position.ts'
import type { GapReason, QueueEvent } from './queue-events.ts'

/** `expired`: events were missed that are no longer available. */
export type FollowGap = GapReason | 'expired'

export interface FollowState {
  /** Events received while catching up; `undefined` when live. */
  buffered: QueueEvent[] | undefined
  /** UTF-16 units of the buffered events. */
  bufferedUnits: number
  readonly maxBufferedUnits: number
  /** `undefined`: no events are missing. */
  gap: FollowGap | undefined
}

/** Beyond this many buffered events a snapshot costs less than sending them. */
export const BUFFERED_MAX = 10_000

/** `maxBufferedUnits`: most UTF-16 units of the events that may be buffered. */
export function startCatchingUp(maxBufferedUnits: number): FollowState {
  return { buffered: [], bufferedUnits: 0, maxBufferedUnits, gap: undefined }
}

/** Whether to send the event now; otherwise it is buffered. */
export function receiveEvent(state: FollowState, event: QueueEvent): boolean {
  if (!state.buffered) return true
  for (const value of Object.values(event.fields)) state.bufferedUnits += value.length
  if (state.buffered.push(event) > BUFFERED_MAX || state.bufferedUnits > state.maxBufferedUnits) {
    state.gap = 'expired'
    clearBuffer(state)
  }
  return false
}

/** The client catches up with a snapshot, and from there on with the events to come. */
export function clearBuffer(state: FollowState): void {
  state.buffered = []
  state.bufferedUnits = 0
}

/** Whether the client was live and has to catch up from now on. */
export function receiveGap(state: FollowState, reason: GapReason): boolean {
  // After a reconnect the stream is read on from the last position, so nothing is missing.
  if (reason === 'reconnected') return false
  state.gap = reason
  if (state.buffered) return false
  clearBuffer(state)
  return true
}

/** Returns the gap to report before a snapshot. A gap that occurs from now on needs another snapshot. */
export function takeGap(state: FollowState): FollowGap | undefined {
  const { gap } = state
  state.gap = undefined
  return gap
}

/** The client has everything up to `position`; returns the buffered events to send after that. */
export function goLive(state: FollowState, position: string): QueueEvent[] {
  const events = state.buffered ?? []
  state.buffered = undefined
  return events.filter(({ id }) => isAfter(id, position))
}

/** Whether an event is the last one of its job. */
export function isLastEvent({ event }: QueueEvent): boolean {
  return event === 'completed' || event === 'failed' || event === 'removed'
}
