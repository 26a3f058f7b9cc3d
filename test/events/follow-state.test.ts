/** How a client gets from catching up to live and back, without Redis and HTTP. */
import t from 'tap'
import {
  BUFFERED_MAX,
  goLive,
  isLastEvent,
  receiveEvent,
  receiveGap,
  startCatchingUp,
  takeGap,
} from '../../src/events/follow-state.ts'
import type { QueueEvent } from '../../src/events/queue-events.ts'

const eventAt = (id: string, event = 'progress'): QueueEvent => ({
  queue: 'q',
  id,
  event,
  key: 'a',
  fields: {},
})
const idsOf = (events: QueueEvent[]) => events.map(({ id }) => id)

function live() {
  const state = startCatchingUp(1_000_000)
  goLive(state, '0-0')
  return state
}

t.test(
  'events are buffered while catching up, and sent in order after the position of the client',
  async (t) => {
    const state = startCatchingUp(1_000_000)
    for (const id of ['5-0', '5-1', '10-0']) t.notOk(receiveEvent(state, eventAt(id)))
    t.strictSame(idsOf(goLive(state, '5-0')), ['5-1', '10-0'])
  },
)

t.test('a live client receives events at once', async (t) => {
  const state = live()
  t.ok(receiveEvent(state, eventAt('5-0')))
  t.strictSame(goLive(state, '0-0'), [], 'nothing was buffered')
})

t.test('a gap makes a live client catch up again, once', async (t) => {
  const state = live()
  t.ok(receiveGap(state, 'trimmed'))
  t.notOk(receiveEvent(state, eventAt('5-0')), 'events wait for the snapshot')
  t.notOk(receiveGap(state, 'flushed'), 'it is catching up already')
  t.equal(takeGap(state), 'flushed')
  t.equal(takeGap(state), undefined)
  t.strictSame(idsOf(goLive(state, '0-0')), ['5-0'])
})

t.test('a gap while the client catches up is reported before it is live', async (t) => {
  const state = startCatchingUp(1_000_000)
  t.notOk(receiveGap(state, 'vanished'))
  t.equal(state.gap, 'vanished')
  t.ok(state.buffered, 'it is still catching up')
})

t.test('a reconnect is no gap', async (t) => {
  const state = live()
  t.notOk(receiveGap(state, 'reconnected'))
  t.ok(receiveEvent(state, eventAt('5-0')), 'the client is still live')
  t.equal(takeGap(state), undefined)
})

t.test('a gap during the snapshot needs another snapshot', async (t) => {
  const state = startCatchingUp(1_000_000)
  receiveGap(state, 'trimmed')
  takeGap(state)
  receiveGap(state, 'reset')
  t.equal(takeGap(state), 'reset')
})

t.test('more events than the buffer holds are dropped and become a gap', async (t) => {
  const state = startCatchingUp(1_000_000)
  for (let i = 0; i < BUFFERED_MAX; i++) receiveEvent(state, eventAt(`${i}-0`))
  t.equal(state.gap, undefined)
  t.notOk(receiveEvent(state, eventAt('10000-0')))
  t.equal(takeGap(state), 'expired')
  receiveEvent(state, eventAt('10001-0'))
  t.strictSame(idsOf(goLive(state, '0-0')), ['10001-0'])
})

t.test('completed, failed and removed are the last events of a job', async (t) => {
  for (const event of ['completed', 'failed', 'removed']) t.ok(isLastEvent(eventAt('1-0', event)), event)
  for (const event of ['active', 'delayed', 'stalled', '']) t.notOk(isLastEvent(eventAt('1-0', event)), event)
})

t.test('a client whose buffered events are too large needs a snapshot', async (t) => {
  const state = startCatchingUp(1_000)
  const large = (id: string) => ({
    queue: 'q',
    id,
    event: 'completed',
    key: 'a',
    fields: { returnvalue: 'x'.repeat(400) },
  })
  t.equal(receiveEvent(state, large('1-0')), false)
  t.equal(receiveEvent(state, large('2-0')), false)
  t.equal(state.gap, undefined)
  t.equal(receiveEvent(state, large('3-0')), false)
  t.equal(state.gap, 'expired')
  t.same(state.buffered, [])
  t.equal(receiveEvent(state, large('4-0')), false)
  t.equal(state.buffered?.length, 1, 'it counts anew')
})
