/**
 * JSON texts as fast-check arbitraries: every way to spell a value (white space, escapes, numbers, duplicate and forbidden names),
 * and mutations that make most of them invalid.
 */
import * as fc from 'fast-check'

const often = <T>(weight: number, arbitrary: fc.Arbitrary<T>) => ({ weight, arbitrary })

const space = fc.oneof(
  often(8, fc.constant('')),
  often(2, fc.constantFrom(' ', '\n', '\t', '\r', '  ', '\r\n  ', ' \t\n\r ')),
  often(1, fc.constantFrom(' '.repeat(13), `\n${' '.repeat(37)}`, '\t\n\t'.repeat(7))),
)

const piece = fc.oneof(
  often(
    6,
    fc.constantFrom('a', 'Z', '0', ' ', '/', "'", '{', ']', ',', ':', '~', '\u007f', 'lorem ', 'data'),
  ),
  often(2, fc.constantFrom('\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t')),
  often(
    2,
    fc.constantFrom('\\u0061', '\\u00E9', '\\u4e2d', '\\u0000', '\\u001f', '\\u0022', '\\u005C', '\\uFFFF'),
  ),
  often(1, fc.constantFrom('\\ud83d\\ude00', '\\ud83d', '\\ude00', '\\ud83d\\u0041', '\\uD800\\uD800')),
  often(2, fc.constantFrom('é', 'ü', '中', '文', '🙂', '\u2028', '\ufeff', '\uffff')),
  often(
    1,
    fc.integer({ min: 1, max: 90 }).map((size) => 'x'.repeat(size)),
  ),
)

const string = fc.array(piece, { maxLength: 8 }).map((pieces) => `"${pieces.join('')}"`)

const names = [
  'data',
  'd\\u0061ta',
  'children',
  'childr\\u0065n',
  'jobs',
  'j\\u006fbs',
  'queue',
  'a',
  'b',
  '\\u0061',
  '',
]
const forbiddenNames = [
  '__proto__',
  '\\u005f_proto\\u005F_',
  'constructor',
  'constr\\u0075ctor',
  'prototype',
  'prot\\u006ftype',
]
const name = fc.oneof(
  often(
    12,
    fc.constantFrom(...names).map((text) => `"${text}"`),
  ),
  often(4, string),
  often(
    1,
    fc.constantFrom(...forbiddenNames).map((text) => `"${text}"`),
  ),
)

export const number = fc.oneof(
  fc.constantFrom(
    '0',
    '-0',
    '-1',
    '0.0',
    '1.0',
    '1e400',
    '-1E+400',
    '1e-400',
    '9007199254740993',
    '9007199254740992',
  ),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
  fc
    .tuple(fc.boolean(), fc.bigInt({ min: 0n, max: 10n ** 40n }))
    .map(([minus, digits]) => `${minus ? '-' : ''}${digits}`),
  fc
    .tuple(fc.nat(99), fc.nat(), fc.constantFrom('e', 'E+', 'E-'), fc.nat(30))
    .map(([a, b, e, c]) => `${a}.${b}${e}${c}`),
)

const scalar = fc.oneof(string, number, fc.constantFrom('true', 'false', 'null', '{}', '[]', '""'))

const deep = fc
  .tuple(fc.integer({ min: 55, max: 70 }), fc.constantFrom('[', '{"a":'), scalar)
  .map(([levels, open, inner]) => open.repeat(levels) + inner + (open === '[' ? ']' : '}').repeat(levels))

/** A valid text with space around its tokens. */
export const validText: fc.Arbitrary<string> = fc.letrec<{ value: string; array: string; object: string }>(
  (tie) => ({
    value: fc.oneof(
      { maxDepth: 5, depthSize: 'small' },
      often(40, scalar),
      often(30, tie('object')),
      often(20, tie('array')),
      often(1, deep),
    ),
    array: fc
      .array(fc.tuple(space, tie('value'), space), { maxLength: 5 })
      .map((items) => `[${items.map((item) => item.join('')).join()}]`),
    object: fc
      .array(fc.tuple(space, name, space, fc.constant(':'), space, tie('value'), space), { maxLength: 5 })
      .map((members) => `{${members.map((member) => member.join('')).join()}}`),
  }),
).value

export const spacedText = fc.tuple(space, validText, space).map((parts) => parts.join(''))

const bytes = [
  ...'"\\{}[]:,-+.eE0123456789tfnu/ \n\r\t\b\0\u007f',
  0x80,
  0xbf,
  0xc0,
  0xc3,
  0xe2,
  0xed,
  0xef,
  0xf0,
  0xf5,
  0xff,
]
const byte = fc.oneof(
  fc.constantFrom(...bytes.map((some) => (typeof some === 'string' ? some.charCodeAt(0) : some))),
  fc.nat(255),
)

/** Positions are fractions of the size, so that they fit a text of any size. */
const position = fc.nat(9_999)
const mutation = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: position, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('replace' as const), at: position, byte }),
  fc.record({ kind: fc.constant('insert' as const), at: position, byte }),
  fc.record({ kind: fc.constant('remove' as const), at: position, size: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('truncate' as const), at: position }),
  fc.record({ kind: fc.constant('repeat' as const), at: position, size: fc.integer({ min: 1, max: 12 }) }),
)
type Mutation = typeof mutation extends fc.Arbitrary<infer M> ? M : never

function mutate(text: Buffer, change: Mutation): Buffer {
  const at = Math.floor((change.at / 10_000) * text.length)
  const [before, after] = [text.subarray(0, at), text.subarray(at)]
  switch (change.kind) {
    case 'flip':
      return Buffer.concat([before, Buffer.from([(after[0] ?? 0) ^ (1 << change.bit)]), after.subarray(1)])
    case 'replace':
      return Buffer.concat([before, Buffer.from([change.byte]), after.subarray(1)])
    case 'insert':
      return Buffer.concat([before, Buffer.from([change.byte]), after])
    case 'remove':
      return Buffer.concat([before, after.subarray(change.size)])
    case 'truncate':
      return before
    case 'repeat':
      return Buffer.concat([before, after.subarray(0, change.size), after])
  }
}

/** Mostly invalid, some valid; many invalid only in one byte. */
export const mutatedBytes = fc
  .tuple(spacedText, fc.array(mutation, { minLength: 1, maxLength: 2 }))
  .map(([text, changes]) => changes.reduce(mutate, Buffer.from(text)))
