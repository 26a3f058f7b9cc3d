/** The transitions of a coalescer lane, by themselves: no promises, no timers. */
import t from 'tap'
import {
  createLane,
  entryCount,
  isIdle,
  type Lane,
  nextStep,
  putEntry,
  settleBatch,
  takeBatch,
} from '../../../src/jobs/enqueue/coalescer-lane.ts'

const limits = { batchMax: 3, batchSoon: 2, batchBytes: 10, inFlightMax: 2 }

function laneWith(entries: string, bytes = 1): Lane<string> {
  const lane = createLane<string>('q')
  for (const entry of entries) putEntry(lane, entry, bytes, limits)
  return lane
}
const waiting = (lane: Lane<string>) => lane.waiting.map(({ entries }) => entries.join(''))

t.test('a new lane is idle', async (t) => {
  const lane = createLane('q')
  t.equal(lane.name, 'q')
  t.ok(isIdle(lane))
  t.equal(entryCount(lane), 0)
  t.equal(takeBatch(lane, limits), undefined)
})

t.test('an entry joins the last batch, up to batchMax entries', async (t) => {
  const lane = laneWith('abcd')
  t.same(waiting(lane), ['abc', 'd'])
  t.equal(entryCount(lane), 4)
})

t.test('a batch has at most batchBytes; a larger entry is alone', async (t) => {
  t.same(waiting(laneWith('abc', 5)), ['ab', 'c'])
  t.same(waiting(laneWith('ab', 11)), ['a', 'b'])
  t.equal(laneWith('ab', 5).waiting[0]!.bytes, 10)
})

t.test('a batch below batchSoon schedules one send', async (t) => {
  const lane = laneWith('a')
  t.equal(nextStep(lane, limits), 'schedule')
  lane.cancelScheduled = () => {}
  t.equal(nextStep(lane, limits), 'wait')
  t.notOk(isIdle(lane))
})

t.test('a batch with batchSoon entries is sent, also when a send is scheduled', async (t) => {
  const lane = laneWith('ab')
  t.equal(nextStep(lane, limits), 'send')
  lane.cancelScheduled = () => {}
  t.equal(nextStep(lane, limits), 'send')
})

t.test('a batchMax below batchSoon is enough to send', async (t) => {
  t.equal(nextStep(laneWith('a'), { ...limits, batchMax: 1 }), 'send')
})

t.test('batches are taken oldest first, until inFlightMax are in flight', async (t) => {
  const lane = laneWith('abcdefgh')
  const first = takeBatch(lane, limits)!
  t.same(first.entries, ['a', 'b', 'c'])
  t.same(takeBatch(lane, limits)!.entries, ['d', 'e', 'f'])
  t.equal(takeBatch(lane, limits), undefined)
  t.match(lane, { batchesInFlight: 2, entriesInFlight: 6 })
  t.same(waiting(lane), ['gh'])
  t.equal(entryCount(lane), 8)
  t.equal(nextStep(lane, limits), 'wait', 'saturated, although the batch is large enough')
  settleBatch(lane, first)
  t.match(lane, { batchesInFlight: 1, entriesInFlight: 3 })
  t.equal(nextStep(lane, limits), 'send')
})

t.test('a lane is idle only when nothing waits, is scheduled or is in flight', async (t) => {
  const lane = laneWith('a')
  t.notOk(isIdle(lane), 'an entry waits')
  const batch = takeBatch(lane, limits)!
  t.notOk(isIdle(lane), 'a batch is in flight')
  settleBatch(lane, batch)
  t.ok(isIdle(lane))
  lane.cancelScheduled = () => {}
  t.notOk(isIdle(lane), 'a send is scheduled')
})
