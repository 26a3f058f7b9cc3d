/** The transitions of the stream reader and what follows from its states. No Redis. */
import t from 'tap'
import { MAX_ENTRIES } from '../../../src/redis/streams/read-size.ts'
import {
  blockMs,
  CONNECTION_LOST,
  entriesReceived,
  hasUnreadStream,
  hasUnverifiedStream,
  IDLE,
  isStreamLive,
  lastStreamRemoved,
  mayFollowTrim,
  type ReaderState,
  type ReadStream,
  readCompleted,
  readerHealth,
  readingFailed,
  readingStarted,
  readingStopped,
  replyArrived,
} from '../../../src/redis/streams/stream-reader-state.ts'

const CATCHING_UP = readingStarted(IDLE)
const LIVE = readCompleted(CATCHING_UP)
const DEGRADED = readingFailed(LIVE, 'NOPERM', 1)
const BEHIND = readCompleted(entriesReceived(LIVE, MAX_ENTRIES, MAX_ENTRIES))
const all: Record<string, ReaderState> = { IDLE, CATCHING_UP, LIVE, DEGRADED, BEHIND }

const stream = (more: Partial<ReadStream> = {}): ReadStream => ({
  position: '0-0',
  addedAt: 0,
  joined: true,
  broken: false,
  eventless: false,
  keptChecks: 0,
  unverifiedSince: undefined,
  ...more,
})
const LONG_AGO = 1_000

t.test('a reader starts idle, catches up, and is live after its first read', async (t) => {
  t.match(IDLE, { phase: 'idle', reason: null, isBehind: false })
  t.equal(CATCHING_UP.phase, 'catching up')
  t.match(LIVE, { phase: 'live', reason: null })
})

t.test('a failure degrades every state, and the next read heals it', async (t) => {
  for (const [name, state] of Object.entries(all)) {
    const failed = readingFailed(state, 'LOADING', 3)
    t.match(failed, { phase: 'degraded', reason: 'LOADING' }, name)
    t.match(readingStarted(failed), { phase: 'degraded', reason: 'LOADING' }, `${name}: a new run does not`)
    t.match(readCompleted(failed), { phase: 'live', reason: null }, name)
  }
})

t.test('the last failure is the reason', async (t) => {
  t.equal(readingFailed(DEGRADED, 'LOADING', 1).reason, 'LOADING')
})

t.test('a failure without streams, and the removal of the last stream, leave the reader idle', async (t) => {
  for (const [name, state] of Object.entries(all)) {
    t.match(readingFailed(state, 'LOADING', 0), { phase: 'idle', reason: null }, name)
  }
  t.match(lastStreamRemoved(DEGRADED), { phase: 'idle', reason: null })
  t.equal(lastStreamRemoved(LIVE), LIVE, 'a live reader is idle only once its run ends')
  t.equal(readingStopped(LIVE).phase, 'idle')
  t.equal(readingStopped(DEGRADED), DEGRADED)
})

t.test('a full batch means that the reader is behind, until a reply without one', async (t) => {
  t.equal(entriesReceived(LIVE, MAX_ENTRIES - 1, MAX_ENTRIES).isBehind, false)
  t.equal(BEHIND.isBehind, true)
  t.equal(
    entriesReceived(BEHIND, 1, MAX_ENTRIES).isBehind,
    true,
    'another stream of the same reply does not change it',
  )
  t.equal(replyArrived(BEHIND).isBehind, false)
})

t.test('small full batches in a row mean that the reader is behind once they are many entries', async (t) => {
  let state = LIVE
  for (let read = 1; read <= 10; read++) {
    state = entriesReceived(replyArrived(state), 100, 100)
    t.equal(blockMs(state, true), 0, 'the next read follows at once')
    t.equal(state.isBehind, read === 10, `${read} reads`)
  }
  state = entriesReceived(replyArrived(state), 99, 100)
  t.match(state, { isBehind: false, backlog: 0 })
})

t.test('only a reader that has caught up blocks, and briefly where it cannot be interrupted', async (t) => {
  for (const [name, state] of Object.entries(all)) {
    const expected = state === LIVE ? [2_000, 80] : [0, 0]
    t.same([blockMs(state, true), blockMs(state, false)], expected, name)
  }
})

t.test('a stream in the read is live while the reader is live', async (t) => {
  for (const [name, state] of Object.entries(all)) {
    t.equal(isStreamLive(state, stream(), false, LONG_AGO), state === LIVE, name)
  }
  t.notOk(isStreamLive(LIVE, undefined, true, 0), 'an unknown stream')
  t.notOk(isStreamLive(LIVE, stream({ broken: true }), true, 0), 'a key of another type')
  t.notOk(isStreamLive(LIVE, stream({ eventless: true }), true, 0), 'a queue that keeps no events')
})

t.test('a new stream is live for 100 ms before its first read, while the connection is up', async (t) => {
  const added = stream({ joined: false, addedAt: 500 })
  for (const state of [IDLE, CATCHING_UP, LIVE]) {
    t.ok(isStreamLive(state, added, true, 599), state.phase)
    t.notOk(isStreamLive(state, added, true, 600), state.phase)
    t.notOk(isStreamLive(state, added, false, 599), state.phase)
  }
  for (const state of [DEGRADED, BEHIND]) t.notOk(isStreamLive(state, added, true, 501), state.phase)
})

t.test('health: idle without streams, degraded with a reason, live otherwise', async (t) => {
  for (const [name, state] of Object.entries(all)) {
    t.same(readerHealth(state, 0, false), { status: 'idle', reason: null }, name)
  }
  const healthy = { status: 'live', reason: null }
  t.same(readerHealth(LIVE, 1, true), healthy)
  t.same(readerHealth(CATCHING_UP, 1, true), healthy)
  t.same(readerHealth(CATCHING_UP, 1, false), { status: 'degraded', reason: CONNECTION_LOST })
  t.same(readerHealth(LIVE, 1, false), healthy, 'until the connection reports its loss')
  t.same(readerHealth(DEGRADED, 1, true), { status: 'degraded', reason: 'NOPERM' })
  t.same(readerHealth(BEHIND, 1, true), {
    status: 'degraded',
    reason: 'Events arrive faster than they are read',
  })
})

t.test(
  'only a read of half a node or more, and nearly as long as the stream, may follow a trim',
  async (t) => {
    t.notOk(mayFollowTrim(49))
    t.ok(mayFollowTrim(50), 'a stream that was never checked')
    t.notOk(mayFollowTrim(199, 300))
    t.ok(mayFollowTrim(200, 300))
    t.notOk(mayFollowTrim(49, 10))
    t.ok(mayFollowTrim(8, 300, 8), 'a read that was cut off')
  },
)

t.test('a stream outside the read is unread, unless its key has another type', async (t) => {
  t.notOk(hasUnreadStream(new Map()))
  t.notOk(hasUnreadStream(new Map([['a', stream()]])))
  t.notOk(hasUnreadStream(new Map([['a', stream({ joined: false, broken: true })]])))
  const unread: [string, ReadStream] = ['b', stream({ joined: false })]
  t.ok(hasUnreadStream(new Map([['a', stream()], unread])))
  t.notOk(hasUnverifiedStream(new Map([unread])))
  t.ok(hasUnverifiedStream(new Map([unread, ['c', stream({ unverifiedSince: '0-0' })]])))
})
