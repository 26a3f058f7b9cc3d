/**
 * The states of one connection and their transitions, as plain values. Times are in ms of one monotonic clock.
 *
 *   connecting ─ ready ─→ ready ─ closed ─→ down ─ ready ─→ ready
 *   any state ─ command timed out ─→ suspect ─ reply received ─→ ready, or down if the socket is gone
 *
 * A suspect connection stays suspect while it reconnects: nothing is written to it until Redis replies on it.
 */
export interface ConnectionState {
  readonly phase: 'connecting' | 'ready' | 'suspect' | 'down'
  /** Since when there has been no usable connection; `undefined` while there is one. */
  readonly downSince: number | undefined
  readonly wasReady: boolean
}

export function connecting(now: number): ConnectionState {
  return { phase: 'connecting', downSince: now, wasReady: false }
}

export function connectionReady(): ConnectionState {
  return { phase: 'ready', downSince: undefined, wasReady: true }
}

export function connectionClosed(state: ConnectionState, now: number): ConnectionState {
  if (state.downSince !== undefined) return state
  return { ...state, phase: state.phase === 'suspect' ? 'suspect' : 'down', downSince: now }
}

export function commandTimedOut(state: ConnectionState): ConnectionState {
  return state.phase === 'suspect' ? state : { ...state, phase: 'suspect' }
}

export function replyReceived(state: ConnectionState): ConnectionState {
  if (state.phase !== 'suspect') return state
  if (state.downSince === undefined) return { ...state, phase: 'ready' }
  return { ...state, phase: state.wasReady ? 'down' : 'connecting' }
}

/** How long there has been no usable connection, ms; 0 while there is one. */
export function downMs({ downSince }: ConnectionState, now: number): number {
  return downSince === undefined ? 0 : now - downSince
}
