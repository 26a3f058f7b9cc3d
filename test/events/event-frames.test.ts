/** Parses frames as a browser does (WHATWG HTML, §9.2.6), to compare what clients receive. */
import t from 'tap'
import { jobStates } from '../../src/bullmq/job-states.ts'
import {
  type FollowedEvent,
  frameOf,
  frameOfGap,
  frameOfEvent as frameWithin,
  isNamed,
  stateOf,
} from '../../src/events/event-frames.ts'
import { parseEntry, type QueueEvent } from '../../src/events/queue-events.ts'

const frameOfEvent = (event: FollowedEvent, maxBytes = 1_000_000) => frameWithin(event, maxBytes)

const ID = '1790000000123-4'
const at = '2026-09-21T14:13:20.123Z'
/** What every event of a job contains. */
const about = { id: 'emails:42', queue: 'emails', at }

/** An entry as BullMQ writes it. */
function eventOf(event: string, fields: Record<string, string> = {}, key: string | null = '42'): QueueEvent {
  const all = { event, ...(key === null ? {} : { jobId: key }), ...fields }
  return parseEntry('emails', [ID, Object.entries(all).flat()])
}

interface Message {
  event: string
  id: string
  data: unknown
}

/** The messages in a text, each ended by an empty line; CR, LF and CRLF end a line. */
function read(text: string): Message[] {
  const messages: Message[] = []
  let message: Partial<Message> = {}
  let data: string[] = []
  for (const line of text.split(/\r\n|\n|\r/)) {
    if (line === '') {
      if (data.length > 0) {
        messages.push({ event: 'message', id: '', ...message, data: JSON.parse(data.join('\n')) })
      }
      message = {}
      data = []
      continue
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line)!
    if (name === 'data') data.push(value!)
    else if (name === 'event' || name === 'id') message[name] = value!
    else throw new Error(`unexpected line: ${line}`)
  }
  return messages
}

/** The one message that an event becomes. */
function messageOf(event: QueueEvent): Message {
  const messages = read(frameOfEvent(event))
  if (messages.length !== 1) throw new Error(`${messages.length} messages`)
  return messages[0]!
}

const dataOf = (event: QueueEvent) => messageOf(event).data

t.test('a frame is an event, a line of data and an empty line, after an optional id', async (t) => {
  t.equal(frameOf('snapshot', '{"a":1}'), 'event: snapshot\ndata: {"a":1}\n\n')
  t.equal(frameOf('snapshot', '{"a":1}', '5-0'), 'id: 5-0\nevent: snapshot\ndata: {"a":1}\n\n')
})

t.test('the frame of an event has the id of its entry, so that a client can resume from it', async (t) => {
  t.match(frameOfEvent(eventOf('added', { name: 'welcome' })), /^id: 1790000000123-4\nevent: added\ndata: \{/)
  t.equal(messageOf(eventOf('progress', { data: '1' })).id, ID)
})

t.test('a gap has no id, so that a client that reconnects after it receives a gap again', async (t) => {
  t.equal(frameOfGap('trimmed'), 'event: gap\ndata: {"reason":"trimmed"}\n\n')
  t.strictSame(read(frameOfGap('expired')), [{ event: 'gap', id: '', data: { reason: 'expired' } }])
})

t.test('every change of state is a `state` event', async (t) => {
  for (const state of jobStates) {
    const { event, data } = messageOf(eventOf(state, { prev: 'active' }))
    t.equal(event, 'state')
    t.hasStrict(data, { ...about, state, previous: 'active' })
    t.equal(stateOf(eventOf(state)), state)
  }
  t.strictSame(
    dataOf(eventOf('waiting')),
    { ...about, state: 'waiting', previous: null },
    'the first state has no previous one',
  )
})

t.test('other names are not taken for states', async (t) => {
  for (const name of ['added', 'progress', 'removed', 'paused', 'waiting-children-2', '', 'toString']) {
    t.equal(stateOf(eventOf(name)), undefined, name)
    t.not(messageOf(eventOf(name)).event, 'state', name)
  }
})

t.test('the final event contains the result or the error', async (t) => {
  const completed = (returnvalue: string) => dataOf(eventOf('completed', { returnvalue, prev: 'active' }))
  const end = { ...about, state: 'completed', previous: 'active' }
  t.strictSame(completed('{"sent":[1,"x"]}'), { ...end, result: { sent: [1, 'x'] } })
  t.strictSame(completed('null'), { ...end, result: null })
  t.strictSame(completed('0'), { ...end, result: 0 })
  t.strictSame(completed('"two\\nlines"'), { ...end, result: 'two\nlines' })
  t.strictSame(dataOf(eventOf('completed', { prev: 'active' })), { ...end, result: null }, 'no return value')
  t.strictSame(dataOf(eventOf('failed', { failedReason: 'no such host', prev: 'active' })), {
    ...about,
    state: 'failed',
    previous: 'active',
    error: { message: 'no such host' },
  })
  t.hasStrict(dataOf(eventOf('failed')), { error: { message: '' } })
})

t.test('a result that is not JSON is passed as text', async (t) => {
  for (const text of ['{"sent":', 'undefined', 'NaN', '', 'a: b\n\nevent: x']) {
    t.hasStrict(dataOf(eventOf('completed', { returnvalue: text })), { result: text }, JSON.stringify(text))
  }
})

t.test('only the final event contains a result or an error', async (t) => {
  const fields = { returnvalue: '1', failedReason: 'x', delay: '1790000060000' }
  const check = (state: string, outcome: object) =>
    t.strictSame(dataOf(eventOf(state, fields)), { ...about, state, previous: null, ...outcome })
  check('active', {})
  check('completed', { result: 1 })
  check('failed', { error: { message: 'x' } })
})

t.test('a delayed event contains the due time', async (t) => {
  t.strictSame(dataOf(eventOf('delayed', { delay: '1790000060000' })), {
    ...about,
    state: 'delayed',
    previous: null,
    delayedUntil: '2026-09-21T14:14:20.000Z',
  })
  t.strictSame(dataOf(eventOf('delayed')), { ...about, state: 'delayed', previous: null }, 'if it is known')
})

t.test('progress is passed as the worker reported it: a number, a text or an object', async (t) => {
  for (const progress of [0, 42.5, 'half', null, true, [1, 2], { done: 3, of: { many: [4] } }]) {
    const { event, data } = messageOf(eventOf('progress', { data: JSON.stringify(progress) }))
    t.equal(event, 'progress')
    t.strictSame(data, { ...about, progress })
  }
  for (const text of ['{broken', 'half', '']) {
    t.strictSame(dataOf(eventOf('progress', { data: text })), { ...about, progress: text }, 'not JSON')
  }
})

t.test('progress cannot pass for another field of the event', async (t) => {
  const progress = JSON.stringify({ id: 'x', queue: 'y', at: 'z', state: 'completed' })
  t.strictSame(dataOf(eventOf('progress', { data: progress })), { ...about, progress: JSON.parse(progress) })
})

t.test('all other events keep their names and known fields', async (t) => {
  const rows: [event: string, fields: Record<string, string>, details: object][] = [
    ['added', { name: 'welcome' }, { name: 'welcome' }],
    ['removed', { prev: 'completed' }, { previous: 'completed' }],
    ['stalled', {}, {}],
    ['retries-exhausted', { attemptsMade: '3' }, { attemptsMade: 3 }],
    ['debounced', { debounceId: 'd' }, {}],
    [
      'deduplicated',
      { deduplicationId: 'a:b', deduplicatedJobId: '43' },
      { deduplicationId: 'a:b', deduplicatedId: 'emails:43' },
    ],
    ['deduplicated', { deduplicationId: '' }, { deduplicationId: '' }],
    ['unknown-event', { name: 'n', secret: 'x' }, { name: 'n' }],
  ]
  for (const [event, fields, details] of rows) {
    t.strictSame(messageOf(eventOf(event, fields)), { event, id: ID, data: { ...about, ...details } }, event)
  }
})

t.test('an event of the whole queue has no job id', async (t) => {
  const queue = { queue: 'emails', at }
  t.strictSame(messageOf(eventOf('paused', {}, null)), { event: 'paused', id: ID, data: queue })
  t.strictSame(dataOf(eventOf('drained', {}, null)), queue)
  t.strictSame(dataOf(eventOf('cleaned', { count: '17' }, null)), { ...queue, count: 17 })
})

t.test('no text from a job or a worker can start a line of its own', async (t) => {
  const smuggled = [
    'x\n\nevent: state\ndata: {"state":"completed"}',
    'x\r\rid: 9-9\r\r',
    'x\r\ndata: 1\r\n\r\n',
    '\u2028\u2029\u0085\u0000\v\f',
    '":{}\\',
  ]
  for (const text of smuggled) {
    const json = JSON.stringify(text)
    t.hasStrict(dataOf(eventOf('completed', { returnvalue: json })), { result: text })
    t.hasStrict(dataOf(eventOf('completed', { returnvalue: text, prev: text })), {
      result: text,
      previous: text,
    })
    t.hasStrict(dataOf(eventOf('failed', { failedReason: text })), { error: { message: text } })
    t.hasStrict(dataOf(eventOf('progress', { data: json })), { progress: text })
    t.hasStrict(dataOf(eventOf('added', { name: text })), { name: text })
    t.hasStrict(dataOf(eventOf('deduplicated', { deduplicationId: text })), { deduplicationId: text })
    t.hasStrict(dataOf(eventOf('added', {}, text)), { id: `emails:${text}` })
    // Other writers to the stream may choose any event name.
    const { event, id } = messageOf(eventOf(`x${text}`, {}))
    t.notMatch(event, /[\r\n]/)
    t.equal(id, ID)
  }
})

t.test('equal events make equal frames, and events of different jobs do not', async (t) => {
  const [one, other] = [eventOf('active', { prev: 'waiting' }), eventOf('active', { prev: 'waiting' }, '43')]
  t.equal(frameOfEvent(one), frameOfEvent(eventOf('active', { prev: 'waiting' })))
  t.not(frameOfEvent(one), frameOfEvent(other))
})

t.test('a delay that no Date can hold is left out, and nothing is thrown', async (t) => {
  for (const delay of ['10000000000000000', 'soon']) {
    const frame = frameOfEvent({ queue: 'q', id: '1-0', event: 'delayed', key: 'k', fields: { delay } })
    t.match(frame, /"state":"delayed"/)
    t.notMatch(frame, 'delayedUntil')
  }
})

t.test(
  'an entry as nothing of BullMQ writes it becomes a frame, or none, and nothing is thrown',
  async (t) => {
    const nested = '['.repeat(200_000) + ']'.repeat(200_000)
    t.hasStrict(dataOf(eventOf('completed', { returnvalue: nested })), { result: nested })
    t.hasStrict(dataOf(eventOf('progress', { data: nested })), { progress: nested })
    t.strictSame(dataOf(eventOf('cleaned', { count: 'many' }, null)), { queue: 'emails', at })
    const late = { queue: 'q', id: '18446744073709551615-0', event: 'active', key: 'k', fields: {} }
    t.strictSame(dataOf(late), { id: 'q:k', queue: 'q', at: null, state: 'active', previous: null })
    t.hasStrict(dataOf(eventOf('delayed', { delay: '1e18' })), { state: 'delayed' })
    t.strictSame(dataOf(eventOf('completed', { returnvalue: '{\n  "a":\r\n1 }' })), {
      ...about,
      state: 'completed',
      previous: null,
      result: { a: 1 },
    })
    for (const [name, expected] of [
      ['completed', true],
      ['', false],
      ['x'.repeat(101), false],
    ] as const) {
      t.equal(isNamed(eventOf(name)), expected)
    }
  },
)

t.test('a value that is too long is left out and named', async (t) => {
  const within = (event: FollowedEvent, maxBytes: number) => read(frameOfEvent(event, maxBytes))[0]!.data
  const long = JSON.stringify('x'.repeat(998))
  const end = { ...about, state: 'completed', previous: 'active' }
  const completed = eventOf('completed', { prev: 'active', returnvalue: long })
  t.strictSame(within(completed, 1_100), { ...end, result: 'x'.repeat(998) })
  t.strictSame(within(completed, 999), { ...end, omitted: ['result'] })
  t.strictSame(within({ ...eventOf('completed', { prev: 'active' }), tooLong: ['returnvalue'] }, 999), {
    ...end,
    omitted: ['result'],
  })
  t.hasStrict(within(eventOf('failed', { failedReason: '\u0001'.repeat(200) }), 1_000), {
    omitted: ['error'],
  })
  t.hasStrict(within({ ...eventOf('failed'), tooLong: ['failedReason'] }, 1_000), { omitted: ['error'] })
  t.hasStrict(within(eventOf('progress', { data: long }), 500), { omitted: ['progress'] })
  t.hasStrict(within(eventOf('added', { name: long }), 500), { omitted: ['name'] })
  t.hasStrict(within({ ...eventOf('added'), tooLong: ['name'] }, 500), { omitted: ['name'] })
})
