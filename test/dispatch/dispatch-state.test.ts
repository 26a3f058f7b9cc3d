/** What the dispatcher knows of a queue: when it takes again, and which takes have to wait. */
import t from 'tap'
import {
  afterEmptyTake,
  afterEvent,
  afterFailedTake,
  afterNotification,
  hasChangedSince,
  INITIAL_DISPATCH_STATE,
  mustQueue,
  nextServeMs,
  type QueueDispatchState,
} from '../../src/dispatch/dispatch-state.ts'
import type { TakeResult } from '../../src/dispatch/leased-job.ts'
import { EMPTY_TAKE } from '../../src/dispatch/take-reply.ts'

const NOW_MS = 5_000
const DATE_MS = 1_700_000_000_000

const stateWith = (fields: Partial<QueueDispatchState> = {}): QueueDispatchState => ({
  ...INITIAL_DISPATCH_STATE,
  quietUntilMs: NOW_MS + 60_000,
  ...fields,
})
const event = (name: string, fields: Record<string, string> = {}) => ({ event: name, fields })
const after = (state: QueueDispatchState, name: string, fields?: Record<string, string>) =>
  afterEvent(state, event(name, fields), NOW_MS, DATE_MS)
const afterTake = (state: QueueDispatchState, taken: Partial<TakeResult>, isLive = true) =>
  afterEmptyTake(
    state,
    { taken: { ...EMPTY_TAKE, ...taken }, version: state.version },
    isLive,
    NOW_MS,
    DATE_MS,
  )

t.test('an event that makes a job ready ends the quiet', async (t) => {
  for (const name of ['waiting', 'resumed', 'stalled']) {
    const next = after(stateWith(), name)
    t.equal(next.quietUntilMs, 0, name)
    t.same(next.version, { ready: 1, left: 0 }, name)
  }
})

t.test('a job that ends matters only where the number of active jobs is limited', async (t) => {
  for (const name of ['completed', 'failed', 'waiting-children', 'removed']) {
    const free = after(stateWith(), name)
    t.equal(free.quietUntilMs, NOW_MS + 60_000, name)
    t.notOk(hasChangedSince(free, INITIAL_DISPATCH_STATE.version), name)
    const bounded = after(stateWith({ isBounded: true }), name)
    t.equal(bounded.quietUntilMs, 0, name)
    t.ok(hasChangedSince(bounded, INITIAL_DISPATCH_STATE.version), name)
  }
})

t.test('a delayed job shortens the quiet to when it is due, and never lengthens it', async (t) => {
  const delayed = (state: QueueDispatchState, inMs: number) =>
    after(state, 'delayed', { delay: String(DATE_MS + inMs) })
  const next = delayed(stateWith(), 300)
  t.equal(next.quietUntilMs, NOW_MS + 300)
  t.same(next.version, { ready: 1, left: 1 }, 'a take in progress may have missed it')
  t.equal(delayed(stateWith(), 90_000).quietUntilMs, NOW_MS + 60_000)
  t.equal(delayed(stateWith(), -50).quietUntilMs, NOW_MS + 1, 'it is due already')
  t.equal(after(stateWith(), 'delayed').quietUntilMs, NOW_MS + 1, 'an unknown time counts as due')
  t.equal(delayed(stateWith({ isBounded: true }), 300).quietUntilMs, 0)
})

t.test('other events change nothing', async (t) => {
  const state = stateWith({ isBounded: true })
  for (const name of ['active', 'progress', 'added', 'paused']) t.equal(after(state, name), state, name)
})

t.test('an empty take makes the queue quiet until a job is due or a limit ends', async (t) => {
  const quietMs = (taken: Partial<TakeResult>, isLive?: boolean) =>
    afterTake(stateWith({ quietUntilMs: 0 }), taken, isLive).quietUntilMs - NOW_MS
  t.equal(quietMs({}), 60_000)
  t.equal(quietMs({}, false), 900, 'without events it takes again soon')
  t.equal(quietMs({ nextAtMs: DATE_MS + 700 }), 700)
  t.equal(quietMs({ nextAtMs: DATE_MS - 700 }), 1)
  t.equal(quietMs({ nextAtMs: DATE_MS + 700_000 }), 60_000)
  t.equal(quietMs({ limitedMs: 250, nextAtMs: DATE_MS + 700 }), 250)
  t.equal(quietMs({ limitedMs: 5_000 }, false), 900)
})

t.test('an empty take says nothing when a job became ready since it was sent', async (t) => {
  const state = stateWith({ quietUntilMs: 0 })
  const notified = afterNotification(state)
  const take = { taken: EMPTY_TAKE, version: state.version }
  const next = afterEmptyTake(notified, take, true, NOW_MS, DATE_MS)
  t.equal(next.quietUntilMs, 0)
  t.ok(hasChangedSince(next, state.version))
})

t.test('a job that ended since the take was sent matters if the take met a limit', async (t) => {
  const state = stateWith({ quietUntilMs: 0 })
  const ended = after(state, 'completed')
  for (const taken of [{ isBounded: true }, { isLimitReached: true }]) {
    const take = { taken: { ...EMPTY_TAKE, ...taken }, version: state.version }
    const next = afterEmptyTake(ended, take, true, NOW_MS, DATE_MS)
    t.ok(next.isBounded)
    t.equal(next.quietUntilMs, 0)
  }
  const take = { taken: EMPTY_TAKE, version: state.version }
  t.equal(afterEmptyTake(ended, take, true, NOW_MS, DATE_MS).quietUntilMs, NOW_MS + 60_000)
})

t.test('a new take waits behind others, or while the queue is quiet', async (t) => {
  t.notOk(mustQueue(INITIAL_DISPATCH_STATE, 0, NOW_MS))
  t.ok(mustQueue(INITIAL_DISPATCH_STATE, 1, NOW_MS), 'others wait')
  t.ok(mustQueue(stateWith(), 0, NOW_MS), 'quiet')
  t.notOk(mustQueue(stateWith({ quietUntilMs: NOW_MS }), 0, NOW_MS), 'no longer quiet')
})

t.test('a worker at its own limit keeps no other worker waiting', async (t) => {
  const limited = afterTake(stateWith({ quietUntilMs: 0 }), { isLimitReached: true })
  t.notOk(mustQueue(limited, 1, NOW_MS))
  t.ok(mustQueue(afterTake(limited, {}), 1, NOW_MS), 'until a take for another finds nothing')
})

t.test('pending takes are served when the quiet ends, or a second after a failure', async (t) => {
  t.equal(nextServeMs(stateWith(), NOW_MS), 60_000)
  t.equal(nextServeMs(stateWith({ quietUntilMs: NOW_MS + 0.2 }), NOW_MS), 1)
  t.equal(nextServeMs(INITIAL_DISPATCH_STATE, NOW_MS), 0)
  t.equal(nextServeMs(afterFailedTake(stateWith(), NOW_MS), NOW_MS), 900)
})

t.test('a take that ended early is followed by another at once', async (t) => {
  const next = afterTake(stateWith(), { mayHaveMore: true })
  t.equal(next.quietUntilMs, 0)
  t.notOk(mustQueue(next, 0, NOW_MS))
})
