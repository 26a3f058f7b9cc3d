/**
 * Values that a schema cannot express: which ids and queues exist, what a cursor or a lease looks like, how long a test
 * may wait, and where a delivery may go.
 */
import * as fc from 'fast-check'
import { errorTable } from '../../src/errors.ts'
import type { Override } from './from-schema.ts'
import { anyJson, anyText, cursors, headerText, jobIds, type Text } from './hostile-values.ts'
import { LEASES } from './lease-book.ts'
import { NEXT_PAGE, SEEN_ETAG, SEEN_POSITION } from './seen-values.ts'
import { staysHere, urls } from './urls.ts'

/** A queue of a native producer, and the key of a job in it and in `fuzz`. */
export const ODD_QUEUE = '__odd/ ?#%,é\n*'
export const ODD_KEY = 'a/b ?#%,😀\0'
/** Jobs that exist before the run (seed-and-verify.ts). */
export const SEEDED = ['fuzz:seen', 'fuzz:later', 'fuzz:first', 'fuzz:done', 'fuzz:broke', 'plain', `fuzz:${ODD_KEY}`, `${ODD_QUEUE}:${ODD_KEY}`] // biome-ignore format: a list
export const QUEUES = ['fuzz', 'other', 'default', ODD_QUEUE]
/** Queues with subscriptions, separate from QUEUES so that HTTP workers find jobs. */
export const SUBSCRIBED = ['hooked', 'hooked-2', 'hooked-3', 'hooked-4']

/** Part of every header value of a subscription, to detect leaks. */
export const HIDDEN = 'hush-hush'

const HEADERS = [
  ...['Authorization', 'X-Api-Key', 'x-a', 'Cookie', 'Accept', 'Content-Encoding', 'Date', 'x'.repeat(100), '!#$%&*+.^_|~-', 'constructor'],
] // biome-ignore format: a list to read, not a column
const NO_HEADERS = [
  ...['X-A', 'Host', 'webhook-id', 'Content-Length', 'Transfer-Encoding', 'x'.repeat(101), 'a b', 'é', 'a\r\nX-Injected: 1', '', '__proto__'],
] // biome-ignore format: a list to read, not a column

export const samples = {
  queue: [...QUEUES, ...QUEUES, ...SUBSCRIBED],
  jobId: ['a', 'b', 'seen', 'done'],
  id: ['d1', 'd2'],
  idempotencyKey: ['k1', 'k2'],
  // Mostly valid, because one invalid header invalidates the request.
  headers: [...Array(8).fill(HEADERS).flat(), ...NO_HEADERS],
}

const json = (...all: unknown[]): Text => fc.constantFrom(...all.map((value) => JSON.stringify(value)))
const numbers = (...all: (number | string)[]): Text => fc.constantFrom(...all.map(String))

const secretOf = (bytes: number, byte = bytes) => `whsec_${Buffer.alloc(bytes, byte).toString('base64')}`

/** Replace the schema of a property, by its name. */
export const overrides: Record<string, Override> = {
  lease: {
    fitting: json(...Array(8).fill(LEASES.held), ...Object.values(LEASES)),
    nearly: fc.oneof(
      anyText.map((text) => JSON.stringify(text)),
      anyJson,
      json('x'.repeat(65_536), 'x'.repeat(65_537), '.', 'a.b', 'e30.', '.e30', 'a.b.c', `${'A'.repeat(100)}.${'A'.repeat(22)}`),
    ),
  },
  // A second at most, to keep the run short.
  wait: { fitting: numbers(0, 0, 0, 0, 0, 1), nearly: fc.oneof(numbers(-1, 31, 0.5, '-0', '1e400'), json('0', '1', null, [], {}, true)) },
  // Short leases expire during the run.
  leaseMs: {
    fitting: numbers(1_000, 1_000, 1_000, 1_001, 5_000, 30_000, 60_000, 86_399_999, 86_400_000),
    nearly: fc.oneof(numbers(0, 999, 1_000, 1_000.5, 86_400_000, 86_400_001), anyJson),
  },
  max: { fitting: numbers(1, 2, 3, 5, 10, 100), nearly: fc.oneof(numbers(0, 1, 1.5, 100, 101), anyJson) },
  duration: { fitting: numbers(1, 10, 100, 1_000), nearly: fc.oneof(numbers(0, 1, 86_400_000, 86_400_001), anyJson) },
  url: urls,
  secret: {
    fitting: fc.integer({ min: 24, max: 64 }).map((bytes) => JSON.stringify(secretOf(bytes))),
    nearly: fc.oneof(
      json(...[0, 1, 23, 24, 64, 65, 140].map((bytes) => secretOf(bytes, 1)), 'x'.repeat(200), 'x'.repeat(201)),
      json('whsec_', 'WHSEC_', secretOf(24).slice(6), secretOf(25).replace('=', ''), secretOf(24, 255).replaceAll('/', '_'), `${secretOf(24)}\n`),
      anyJson,
    ),
  },
  'headers{}': {
    fitting: json(`Bearer ${HIDDEN}`, `${HIDDEN}; ~`, ` ${HIDDEN} `, HIDDEN.padEnd(2_000, '!')),
    nearly: fc.oneof(json('', HIDDEN.padEnd(2_001, '!'), `${HIDDEN}\n`, `${HIDDEN}\r\nX-Injected: 1`, `${HIDDEN} é`, `${HIDDEN}\0`), anyJson),
  },
} // biome-ignore format: a table to read

const ids = jobIds(SEEDED)
const queues = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...QUEUES, 'nobody') }, anyText)
const subscribed = fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...SUBSCRIBED) }, anyText)

/** Replace the schema of a parameter, by `in` and name; those of one operation start with its id. */
export const parameterOverrides: Record<string, Text> = {
  'path id': ids,
  'path queue': queues,
  'takeLeases path queue': fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...QUEUES) },
    { weight: 1, arbitrary: fc.constantFrom(...SUBSCRIBED) },
    { weight: 2, arbitrary: queues },
  ),
  'putSubscription path queue': subscribed,
  'getSubscription path queue': subscribed,
  'deleteSubscription path queue': subscribed,
  'rotateSecret path queue': subscribed,
  'path name': fc.oneof(
    fc.constantFrom(...Object.keys(errorTable)).map((code) => code.toLowerCase().replaceAll('_', '-')),
    anyText,
  ),
  'query id': ids,
  'query ids': fc.oneof(
    { weight: 8, arbitrary: fc.array(ids, { minLength: 1, maxLength: 5 }).map((some) => some.join()) },
    { weight: 1, arbitrary: fc.constantFrom(199, 200, 201).map((count) => Array(count).fill('fuzz:seen').join()) },
    { weight: 1, arbitrary: fc.constantFrom(',', ',,,', ','.repeat(300), 'a,a,a', 'fuzz:seen,fuzz:seen') },
  ),
  'query cursor': fc.oneof(
    { weight: 4, arbitrary: fc.constant(NEXT_PAGE) },
    { weight: 4, arbitrary: cursors },
    { weight: 1, arbitrary: anyText },
  ),
  // A second at most, to keep the run short.
  'query wait': fc.constantFrom(
    ...['0', '0', '0', '1', '-1', '31', '1.5', '0.0', '-0', '00', '1e0', '+1', ' 1', '', 'abc', '0x1', '9'.repeat(400)],
  ),
  'header if-none-match': fc.oneof(
    fc.constant(SEEN_ETAG),
    fc.constantFrom('*', '"x"', 'W/"x"', '"x", "y"', 'x', '""', '","', '*, *', `${'"x", '.repeat(500)}"y"`),
    headerText,
  ),
  'header prefer': fc
    .oneof(
      fc.constantFrom('wait=0', 'wait=1', 'respond-async, wait=0', 'wait="0"', 'wait = 0', 'wait=-1', 'wait=', 'WAIT=0'),
      headerText,
    )
    .filter((text) => !/wait\s*=\s*"?0*([2-9]|\d\d)/i.test(text)),
  'header cache-control': fc.oneof(fc.constantFrom('no-cache', 'max-age=0', 'no-store, no-cache'), headerText),
  'header last-event-id': fc.oneof(
    fc.constant(SEEN_POSITION),
    fc.constantFrom('0-0', '1-1', '1700000000000-0', '999999999999999-999999999999999', '0', '-', '+', '$', '>', '(0-0'),
    headerText,
  ),
} // biome-ignore format: a table to read

/** Whether a request waits at most a second and contacts no other machine. A mutation of its text may have changed that. */
export function isHarmless(payload: string | undefined): boolean {
  const { wait, next, url } = Object(parse(payload)) as { wait: unknown; next: unknown; url: unknown }
  const isShort = (seconds: unknown) => !(typeof seconds === 'number' && seconds > 1 && seconds <= 30)
  const waits = [wait, (Object(next) as { wait: unknown }).wait]
  return waits.every(isShort) && (typeof url !== 'string' || staysHere(url))
}

/** Parses as the service does, which skips a byte order mark. */
function parse(text = ''): unknown {
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''))
  } catch {
    return undefined
  }
}
