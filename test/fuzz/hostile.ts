/**
 * Values that have broken other services, as arbitraries of fast-check: texts, JSON texts, ids, cursors, paths. JSON is
 * made as text, since no JavaScript value can say `1e400`, `-0`, a key twice or a key called `__proto__`.
 */
import * as fc from 'fast-check'
import { jobStates } from '../../src/bullmq/job-states.ts'
import { RESERVED_KEYS } from '../../src/jobs/job-id.ts'

export type Text = fc.Arbitrary<string>

const texts = [
  ...['', ' ', '0', '-0', '1e400', '1.5', 'NaN', 'null', 'true', 'undefined', '[object Object]', '*', '$', '?', '#'],
  ...['\0', 'a\0b', '\n', 'a\r\nX-Injected: 1', '\t', '\x7f', '\x1b[2J', '\ufeff', '\u2028', '\u202e', '\ufffe'],
  ...['\ud800', '\udc00', 'a\ud83d', '\udc00\ud800', '😀', 'é', 'e\u0301', 'İ', 'ﷺ', '\u{10ffff}'],
  ...['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'toJSON', 'then', 'length', 'then.then'],
  ...['..', '../..', '/', '//', '\\', '.', '~', '%00', '%2e%2e', '%', '%zz', '%c0%af', ':', '::', ':a', 'a:', 'a:b:c'],
  ...['0:', '0:1', '42', 'repeat:daily:17', 'a:lock', 'a:logs', '-', '+', '>', '{a}', '{}', '(1', '[1', 'inf', '-inf'],
  ...["' OR 1=1 --", '<script>', '$(id)', '{{7*7}}', '"', '"}', '{"a":1}', '[]', 'EVAL', '\r\n*1\r\n$4\r\nPING\r\n'],
  ...['x'.repeat(100), 'x'.repeat(101), 'x'.repeat(128), 'x'.repeat(129), '9'.repeat(400), 'é'.repeat(512), 'a.'.repeat(300)],
  ...RESERVED_KEYS,
] // biome-ignore format: a list to read, not a column

/** Units of UTF-16, halves of pairs among them. */
const unitsOfUtf16: Text = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 })
  .map((units) => String.fromCharCode(...units))

export const anyText: Text = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...texts) },
  { weight: 1, arbitrary: unitsOfUtf16 },
  { weight: 1, arbitrary: fc.string() },
  { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z0-9_.:~-]{1,40}$/) },
)

/** What may stand in a header: Node's parser lets nothing else through, and takes the blanks around it away. */
export const headerText: Text = fc
  .oneof(
    fc.constantFrom(...texts),
    fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)) }),
    fc.constantFrom('x'.repeat(2_000), ','.repeat(2_000), `,${' '.repeat(2_000)}x`, '"'.repeat(2_000)),
  )
  .map(asHeader)

/** What is left of a text when it has to be a header's value. */
export function asHeader(text: string): string {
  return text.replaceAll(/[^\x20-\x7e\x80-\xff]/g, '').trim()
}

export const numberText: Text = fc.oneof(
  fc.constantFrom(
    ...['0', '-0', '1', '-1', '0.0', '1.0', '1.5', '-1.5', '0.1', '1e0', '1e3', '1e400', '-1e400', '1e-400', '5e-324'],
    ...['2147483647', '2147483648', '4294967296', '9007199254740991', '9007199254740992', '9007199254740993'],
    ...['8640000000000000', '1e21', '1e308', '123456789012345678901234567890', `0.${'1'.repeat(300)}`, '9'.repeat(400)],
  ),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
) // biome-ignore format: a list to read, not a column

const deep = (levels: number, open: string, close: string) => open.repeat(levels) + close.repeat(levels)
const wide = (many: number, item: (index: number) => string) =>
  Array.from({ length: many }, (_, i) => item(i)).join()

/** Too deep, too wide, or with keys that reach for a prototype. */
const awkwardJson: Text = fc.oneof(
  fc.constantFrom(63, 64, 65, 66, 500, 20_000).map((levels) => deep(levels, '[', ']')),
  fc.constantFrom(63, 64, 65, 500).map((levels) => `${'{"a":'.repeat(levels)}0${'}'.repeat(levels)}`),
  fc.constantFrom(100, 3_000).map((many) => `[${wide(many, () => '{}')}]`),
  fc.constantFrom(100, 3_000).map((many) => `{${wide(many, (i) => `"k${i}":${i}`)}}`),
  fc.constantFrom(
    ...['{"__proto__":{"a":1}}', '{"__proto__":null}', '{"\\u005f_proto__":1}', '{"constructor":{"prototype":{"a":1}}}'],
    ...['{"constructor":1}', '{"toString":1,"valueOf":2,"hasOwnProperty":3}', '{"toJSON":"x"}', '{"then":{"then":1}}'],
    ...['{"":0}', '{"a":1,"a":2}', '{"\\u0000":"\\u0000"}', '"\\ud800"', '{"\\udc00":1}', '[null]', '[[],{}]', '""'],
    ...['{"length":-1}', '{"0":1,"4294967295":2}', '[1e400]', '{"type":"fixed","delay":-1}', '[true,"true",1,"1",null]'],
  ),
) // biome-ignore format: a list to read, not a column

export const anyJson: Text = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom('null', 'true', 'false', '[]', '{}', '""', '"x"', '[{}]', '{"a":[]}'),
  },
  { weight: 2, arbitrary: numberText },
  { weight: 2, arbitrary: anyText.map((text) => JSON.stringify(text)) },
  { weight: 2, arbitrary: fc.json({ maxDepth: 3 }) },
  { weight: 1, arbitrary: awkwardJson },
)

/** A text that was JSON before something happened to it. */
export const brokenJson = (json: Text): Text =>
  fc
    .tuple(
      json,
      fc.nat(),
      fc.constantFrom('', ',', '}', ']', '"', '\\', '\0', ':', '0', 'NaN', '/**/', '\ufeff', '{'),
    )
    .map(([text, at, piece]) => {
      const place = at % (text.length + 1)
      return at % 2 === 0
        ? text.slice(0, place) + piece
        : text.slice(0, place) + piece + text.slice(place + 1)
    })

/** `given`: ids of jobs that are there. */
export const jobIds = (given: string[]): Text =>
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...given) },
    { weight: 1, arbitrary: anyText },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.constantFrom('fuzz', 'other', '', '..'), anyText)
        .map((parts) => parts.join(':')),
    },
  )

const places = [
  'wait',
  'paused',
  'active',
  'delayed',
  'prioritized',
  'completed',
  'failed',
  'waiting-children',
  'meta',
]
const small = fc.constantFrom<unknown>(0, 1, 2, 3, 7, 1_000, 2 ** 40, -1, 1.5, '1', null)
const scores = fc.constantFrom<unknown>(
  '0',
  '1',
  '-1',
  '1e999',
  '-1e999',
  'inf',
  '-inf',
  'nan',
  '99999999999999999999',
  '(1',
  1,
)

/** Where a page of a list ended, as job-lister.ts would believe it. */
const marksOfLists = fc
  .record({
    span: fc.nat(3),
    before: fc.constantFrom(0, 1, 500, 2 ** 39),
    after: fc.constantFrom(1, 2, 2 ** 39),
    last: fc.array(anyText, { minLength: 1, maxLength: 3 }),
    next: fc.array(anyText, { maxLength: 3 }),
  })
  .map(({ span, before, after, last, next }): unknown[] => {
    const offset = before + span
    return [offset, offset + after, span, last.length, 'first', ...last, ...next]
  })

/** Cursors as job-lister.ts makes them, with other things in their place: they are not signed. */
export const cursors: Text = fc
  .tuple(
    fc.constantFrom<unknown>(...Array(8).fill(1), 2, '1'),
    fc.constantFrom<unknown>(...Array(6).fill('default'), 'fuzz', '', null),
    fc.constantFrom<unknown>(...Array(6).fill(null), ...jobStates, 'wait'),
    fc.oneof(
      fc.tuple(fc.constantFrom('wait', 'paused', 'active'), marksOfLists),
      fc.tuple(fc.constantFrom(...places), fc.tuple(anyText, scores)),
      fc.tuple(fc.constantFrom(...places), fc.tuple(small, small, small, small, anyText, anyText)),
    ),
  )
  .map(([version, queue, state, [place, mark]]) =>
    Buffer.from(JSON.stringify([version, queue, state, place, ...mark])).toString('base64url'),
  )

/** One segment of a path as it stands in the request line: what is in it is not what the router expects. */
export const rawSegments: Text = fc.constantFrom(
  ...['..', '%2e%2e', '.', '%00', '%2f', '%2F..%2F', '%', '%zz', '%ff', '%c0%af', '%ed%a0%80', '%f0%9f%98%80', '+', ';a=b'],
  ...['', '%20', '%0d%0aX-Injected:1', '%23', '%3F', 'a%3Ab', 'fuzz%3aseen', '*', ':id', 'batch', 'events', '~', '@', '=', '&'],
  ...['x'.repeat(699), 'x'.repeat(700), 'x'.repeat(701), '%41'.repeat(700), '%F0%9F%98%80'.repeat(200), 'a:'.repeat(300)],
) // biome-ignore format: a list to read, not a column

/** Percent-encoding that also takes half a pair, as the three bytes that a careless client would make of it. */
export function encode(text: string): string {
  return text.replaceAll(/./gsu, (char) => {
    const code = char.codePointAt(0)!
    if (code < 0xd800 || code > 0xdfff) return encodeURIComponent(char)
    const bytes = [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]
    return bytes.map((byte) => `%${byte.toString(16)}`).join('')
  })
}
