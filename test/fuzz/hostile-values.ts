/**
 * Values that have broken other services, as fast-check arbitraries: texts, JSON texts, ids, cursors, paths. JSON is
 * generated as text, because no JavaScript value can express `1e400`, a repeated key or a key named `__proto__`.
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

/** UTF-16 code units, including lone surrogates. */
const utf16Units: Text = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 })
  .map((units) => String.fromCharCode(...units))

export const anyText: Text = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...texts) },
  { weight: 1, arbitrary: utf16Units },
  { weight: 1, arbitrary: fc.string() },
  { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z0-9_.:~-]{1,40}$/) },
)

/** Header values that Node's parser accepts; it trims whitespace. */
export const headerText: Text = fc
  .oneof(
    fc.constantFrom(...texts),
    fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)) }),
    fc.constantFrom('x'.repeat(2_000), ','.repeat(2_000), `,${' '.repeat(2_000)}x`, '"'.repeat(2_000)),
  )
  .map(asHeader)

/** Removes everything that a header value cannot contain. */
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
const wide = (count: number, item: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => item(i)).join()

/** Too deep, too wide, or with keys that could reach a prototype. */
const extremeJson: Text = fc.oneof(
  fc.constantFrom(63, 64, 65, 66, 500, 20_000).map((levels) => deep(levels, '[', ']')),
  fc.constantFrom(63, 64, 65, 500).map((levels) => `${'{"a":'.repeat(levels)}0${'}'.repeat(levels)}`),
  fc.constantFrom(100, 3_000).map((count) => `[${wide(count, () => '{}')}]`),
  fc.constantFrom(100, 3_000).map((count) => `{${wide(count, (i) => `"k${i}":${i}`)}}`),
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
  { weight: 1, arbitrary: extremeJson },
)

/** JSON text with one piece inserted, replaced or cut off. */
export const brokenJson = (json: Text): Text =>
  fc
    .tuple(
      json,
      fc.nat(),
      fc.constantFrom('', ',', '}', ']', '"', '\\', '\0', ':', '0', 'NaN', '/**/', '\ufeff', '{'),
    )
    .map(([text, at, piece]) => {
      const position = at % (text.length + 1)
      return at % 2 === 0
        ? text.slice(0, position) + piece
        : text.slice(0, position) + piece + text.slice(position + 1)
    })

/** `given`: ids of existing jobs. */
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

const lists = [
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

/** Positions at which a page may have ended, in the format of job-lister.ts. */
const listMarks = fc
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

/** Cursors in the format of job-lister.ts with arbitrary contents; cursors are not signed. */
export const cursors: Text = fc
  .tuple(
    fc.constantFrom<unknown>(...Array(8).fill(1), 2, '1'),
    fc.constantFrom<unknown>(...Array(6).fill('default'), 'fuzz', '', null),
    fc.constantFrom<unknown>(...Array(6).fill(null), ...jobStates, 'wait'),
    fc.oneof(
      fc.tuple(fc.constantFrom('wait', 'paused', 'active'), listMarks),
      fc.tuple(fc.constantFrom(...lists), fc.tuple(anyText, scores)),
      fc.tuple(fc.constantFrom(...lists), fc.tuple(small, small, small, small, anyText, anyText)),
    ),
  )
  .map(([version, queue, state, [list, mark]]) =>
    Buffer.from(JSON.stringify([version, queue, state, list, ...mark])).toString('base64url'),
  )

/** Path segments for the request line that a router may not expect. */
export const rawSegments: Text = fc.constantFrom(
  ...['..', '%2e%2e', '.', '%00', '%2f', '%2F..%2F', '%', '%zz', '%ff', '%c0%af', '%ed%a0%80', '%f0%9f%98%80', '+', ';a=b'],
  ...['', '%20', '%0d%0aX-Injected:1', '%23', '%3F', 'a%3Ab', 'fuzz%3aseen', '*', ':id', 'batch', 'events', '~', '@', '=', '&'],
  ...['x'.repeat(699), 'x'.repeat(700), 'x'.repeat(701), '%41'.repeat(700), '%F0%9F%98%80'.repeat(200), 'a:'.repeat(300)],
) // biome-ignore format: a list to read, not a column

/** Percent-encoding that also encodes lone surrogates, as the three bytes that a careless client would send. */
export function encode(text: string): string {
  return text.replaceAll(/./gsu, (char) => {
    const code = char.codePointAt(0)!
    if (code < 0xd800 || code > 0xdfff) return encodeURIComponent(char)
    const bytes = [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]
    return bytes.map((byte) => `%${byte.toString(16)}`).join('')
  })
}
