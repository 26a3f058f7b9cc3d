/** What a check means for the requests that wait, without Redis and HTTP. */
import t from 'tap'
import type { QueueEvent } from '../../../../src/events/queue-events.ts'
import { toCachedJob } from '../../../../src/jobs/status/cache-entry.ts'
import { type JobResource, resourceOfNewJob } from '../../../../src/jobs/status/job-resource.ts'
import {
  departedJob,
  isDone,
  type KnownJob,
  noteEvent,
  outcomeOf,
} from '../../../../src/jobs/status/waiting/wait-state.ts'

const ref = { queue: 'q', key: 'a' }

function job(state: JobResource['state'] = 'active') {
  return toCachedJob(resourceOfNewJob(ref, { name: 'n', state, timestamp: 1_790_000_000_000 }, {}))
}

const eventOf = (event: string, fields: Record<string, string> = {}): QueueEvent => ({
  queue: 'q',
  id: '1790000000123-0',
  event,
  key: 'a',
  fields,
})
const nothing = (): KnownJob => ({ last: undefined, finalEvent: undefined })
const missing = { job: undefined, position: '6-0' }
const liveAt = (position: string) => ({ isLive: true, position })

t.test('a job that is found is present, whatever is known of it', async (t) => {
  const found = { job: job(), position: '6-0' }
  t.equal(outcomeOf(found, nothing(), liveAt('6-0')), 'present')
  t.equal(outcomeOf(found, { last: job(), finalEvent: eventOf('completed') }, undefined), 'present')
})

t.test('a job that was never seen is missing', async (t) => {
  t.equal(outcomeOf(missing, nothing(), liveAt('5-0')), 'missing')
  t.equal(outcomeOf(missing, { last: undefined, finalEvent: eventOf('completed') }, liveAt('5-0')), 'missing')
})

t.test('a job that is gone is unexplained until the events up to the read have arrived', async (t) => {
  const known = { last: job(), finalEvent: undefined }
  t.equal(outcomeOf(missing, known, liveAt('5-0')), 'unexplained')
  t.equal(outcomeOf(missing, known, liveAt('6-0')), 'missing')
  t.equal(outcomeOf(missing, known, { isLive: false, position: '5-0' }), 'missing', 'no event will come')
  t.equal(outcomeOf(missing, known, undefined), 'missing')
})

t.test('a job that is gone after its final event is departed, with the result of that event', async (t) => {
  const known = nothing()
  known.last = job()
  noteEvent(known, eventOf('completed', { returnvalue: '{"sum":3}' }))
  t.equal(outcomeOf(missing, known, liveAt('5-0')), 'departed')
  const departed = departedJob(known, 1_000_000)
  t.equal(departed?.finished, true)
  t.match(JSON.parse(`${departed!.body}`), {
    state: 'completed',
    result: { sum: 3 },
    attemptsMade: 1,
    finishedAt: '2026-09-21T14:13:20.123Z',
  })
  noteEvent(known, eventOf('failed', { failedReason: 'no' }))
  t.match(JSON.parse(`${departedJob(known, 1_000_000)!.body}`), {
    state: 'failed',
    error: { message: 'no' },
    result: null,
  })
})

t.test('an event after the final one, such as a retry, takes it back', async (t) => {
  const known = nothing()
  known.last = job()
  noteEvent(known, eventOf('failed'))
  noteEvent(known, eventOf('waiting'))
  t.equal(departedJob(known, 1_000_000), undefined)
  t.ok(known.last)
})

t.test('a removed job is missing, not departed', async (t) => {
  const known = nothing()
  known.last = job()
  noteEvent(known, eventOf('completed'))
  noteEvent(known, eventOf('removed'))
  t.equal(known.last, undefined)
  t.equal(outcomeOf(missing, known, liveAt('5-0')), 'missing')
})

t.test('until=finished is done when the job finished or is gone', async (t) => {
  for (const state of ['completed', 'failed'] as const) t.ok(isDone('finished', undefined, job(state)), state)
  t.ok(isDone('finished', undefined, undefined))
  t.notOk(isDone('finished', '"other"', job('active')), 'a change alone does not end it')
})

t.test('until=change is done when the ETag differs', async (t) => {
  const { etag } = job('active')
  t.notOk(isDone('change', etag, job('active')))
  t.ok(isDone('change', etag, job('waiting')))
  t.ok(isDone('change', etag, undefined))
  t.ok(isDone('change', job('failed').etag, job('failed')), 'a finished job does not change any more')
})
