/** The compact and the canonical spelling of raw values, case by case and on generated texts (JSON_RUNS, JSON_SEED). */
import * as fc from 'fast-check'
import { stringify } from 'safe-stable-stringify'
import t from 'tap'
import { rawValue } from '../../src/json/body-shape.ts'
import { createJsonTexts } from '../../src/json/canonical-text.ts'
import { createJsonScanner, type RawJson } from '../../src/json/json-scanner.ts'
import { createRounding } from '../../src/json/rounded-text.ts'
import { spacedText } from './spellings.ts'

const numRuns = Number(process.env['JSON_RUNS'] ?? 2_000)
const seed = Number(process.env['JSON_SEED'] ?? 20_261_128)
// Only then: the file shares its process, and its time limit, with others.
if (numRuns > 2_000) t.setTimeout(300_000 + numRuns)

const scanner = createJsonScanner({ maxDepth: 100 })
const texts = createJsonTexts()
const rawOf = (text: string) => scanner.scan(Buffer.from(text), rawValue) as RawJson
const compact = (text: string) => texts.compact(rawOf(text)).toString()
const round = createRounding()
const rounded = (text: string) => round(texts.canonical(rawOf(text))).toString()
const canonical = (text: string) => texts.canonical(rawOf(text)).toString()

t.test('compact: only white space between tokens goes, and a compact value is not copied', async (t) => {
  t.equal(compact(' { "b" : [ 1 , 2.0 ] ,\n\t"a" : " x\\n\\u0041 " } '), '{"b":[1,2.0],"a":" x\\n\\u0041 "}')
  t.equal(
    compact(`[${' '.repeat(500)}1${'\n'.repeat(500)},"${' '.repeat(500)}"]`),
    `[1,"${' '.repeat(500)}"]`,
  )
  const raw = rawOf('  {"b":1,"a":"x y"}  ')
  t.equal(texts.compact(raw).buffer, raw.body.buffer)
  t.equal(texts.compact(raw).toString(), '{"b":1,"a":"x y"}')
})

t.test('canonical: members are in order of their names at every level', async (t) => {
  const cases: [string, string][] = [
    ['{}', '{}'],
    ['{"b":1,"a":2}', '{"a":2,"b":1}'],
    [
      '[{"b":{"d":[{"z":1,"y":2}],"c":0},"a":0},{"f":1,"e":2}]',
      '[{"a":0,"b":{"c":0,"d":[{"y":2,"z":1}]}},{"e":2,"f":1}]',
    ],
    [
      '{"a":{"y":1,"x":2},"b":[1,{"q":0,"p":{"n":1,"m":2}}]}',
      '{"a":{"x":2,"y":1},"b":[1,{"p":{"m":2,"n":1},"q":0}]}',
    ],
    ['{"10":1,"9":2,"":3,"a":4,"A":5}', '{"":3,"10":1,"9":2,"A":5,"a":4}'],
    ['{"ab":1,"a":2,"a\\u0062c":3}', '{"a":2,"ab":1,"abc":3}'],
  ]
  for (const [text, expected] of cases) t.equal(canonical(text), expected)
})

t.test('canonical: names are ordered by code units, however they are spelled', async (t) => {
  const names = [
    '',
    '\0',
    '\t',
    '\n',
    '\r',
    ' ',
    '"',
    'a',
    'a\t',
    'a"',
    'a\\',
    '\\',
    '\u007f',
    '\u0080',
    'é',
    'ê',
    '中',
    '\ud7ff',
    '\ud800',
    '\ud800a',
    '\ud800\ud800',
    '\u{10000}',
    '\ud800\uffff',
    '\ud83d',
    '\ud83da',
    '\u{1f400}',
    '\u{1f401}',
    '😀',
    '😁',
    '\ud83d\uffff',
    '\ue000',
    '\uffff',
  ]
  const expected = [...names].sort()
  for (let i = 0; i < names.length; i++) {
    const shuffled = [...names.slice(i), ...names.slice(0, i)].reverse()
    for (const count of [shuffled.length, 5]) {
      const some = shuffled.slice(0, count)
      const text = `{${some.map((name) => `${JSON.stringify(name)}:0`).join()}}`
      t.same(
        Object.keys(JSON.parse(canonical(text))),
        expected.filter((name) => some.includes(name)),
      )
    }
  }
})

t.test('canonical: one string has one spelling', async (t) => {
  const spellings = [
    '"A/é😀"',
    '"\\u0041\\/\\u00e9\\ud83d\\ude00"',
    '"A\\u002f\\u00E9😀"',
    '"\\u0041/é\\uD83D\\uDE00"',
  ]
  for (const text of spellings) t.equal(canonical(text), '"A/é😀"')
  t.equal(
    canonical('"\\u0008\\u000A\\u001F\\u0022\\u005C\\ud800\\uDC00\\uDfFf"'),
    '"\\b\\n\\u001f\\"\\\\\ud800\udc00\\udfff"',
  )
  for (const text of ['"\\ud800"', '"\\ud83dxude00"', '"\\ud83d\\\\ude00"', '"\\ud83d"'])
    t.equal(canonical(text), text)
})

t.test('canonical: numbers stay as they were sent, and so do duplicates', async (t) => {
  for (const text of [
    '9007199254740993',
    '9007199254740992',
    '1',
    '1.0',
    '1e0',
    '-0',
    '1e400',
    '[1E5,1e5,100000]',
  ])
    t.equal(canonical(text), text)
  t.equal(canonical('{"b":0,"a":2,"a":1}'), '{"a":2,"a":1,"b":0}')
  t.not(canonical('{"a":1,"a":2}'), canonical('{"a":2,"a":1}'))
})

t.test('canonical: many members and many levels out of order', async (t) => {
  const many = Object.fromEntries(
    Array.from({ length: 3_000 }, (_, i) => [`k${(i * 7_919) % 3_000}`, { b: i, a: [] }]),
  )
  t.equal(canonical(JSON.stringify(many)), stringify(many))
  let deep: unknown = 'x'.repeat(1_000)
  for (let i = 0; i < 90; i++) deep = { b: deep, a: i }
  t.equal(canonical(JSON.stringify(deep)), stringify(deep))
})

t.test('canonical: the text of before (safe-stable-stringify) for what JSON.stringify writes', async () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 4 }), (text) => canonical(text) === stringify(JSON.parse(text))),
    { numRuns, seed },
  )
})

/** Every character of a string as an escape, and space around every token. */
function respell(text: string): string {
  return text.replace(/"(?:\\.|[^"\\])*"|[^\s,:[\]{}]+|[,:[\]{}]/g, (token) => {
    if (!token.startsWith('"')) return ` ${token}\n`
    const units = (JSON.parse(token) as string).split('')
    return ` "${units.map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')}"\t`
  })
}

const isRefused = (text: string) => {
  try {
    rawOf(text)
    return false
  } catch {
    return true
  }
}

t.test('canonical: the same value, its own canonical text, and that of every other spelling', async () => {
  fc.assert(
    fc.property(spacedText, (text) => {
      if (isRefused(text)) return true
      const spelled = canonical(text)
      const isSame = stringify(JSON.parse(spelled)) === stringify(JSON.parse(text))
      return isSame && canonical(spelled) === spelled && canonical(respell(text)) === spelled
    }),
    { numRuns, seed },
  )
})

t.test('rounded: numbers as JSON.stringify spells them, and the last of equal names', async (t) => {
  const numbers =
    '0 -0 0.0 -0.0 0.5 -0.50 0.05 0.000001 0.0000001 1 1.0 -1.0 10 10.00 10.010 100 1e2 1E+2 1.5e3 1e20 1e21 1e400 -1e400 ' +
    '1e-400 12.5 123456789012345 123456789012345.0 0.1234567890123456789 1234567890.12345678 9007199254740993 -9007199254740993'
  for (const number of numbers.split(' ')) {
    t.equal(rounded(number), JSON.stringify(JSON.parse(number)))
    t.equal(
      rounded(`{"a":[${number},"1.0"],"b":${number}}`),
      JSON.stringify(JSON.parse(`{"a":[${number},"1.0"],"b":${number}}`)),
    )
  }
  for (const text of [
    '{"a":1,"a":2,"b":3}',
    '{"a":{"c":1.0,"c":2},"a":{"d":1e2,"d":{}},"a":[3.0]}',
    '[{"a":1,"a":1.0},{"a":1e2,"a":1,"b":0.0}]',
    '{"":1,"":2}',
    '{"a\\"":1,"a":2}',
  ])
    t.equal(rounded(text), stringify(JSON.parse(text)))
  t.equal(
    rounded(JSON.stringify({ l: 'x'.repeat(100) }).replace('}', ',"n":[1e20,1e20,1e20,1e20]}')),
    stringify({ l: 'x'.repeat(100), n: [1e20, 1e20, 1e20, 1e20] }),
  )
  t.equal(
    rounded(`[${'1e20,'.repeat(500)}1]`),
    stringify([...Array(500).fill(1e20), 1]),
    'longer than what was sent',
  )
  const plain = Buffer.from('{"a":[1,2.5,true],"b":"1.0"}')
  t.equal(round(plain), plain, 'the same Buffer if nothing changes')
})

t.test('rounded: the text of before (safe-stable-stringify) for every text', async () => {
  fc.assert(
    fc.property(spacedText, (text) => isRefused(text) || rounded(text) === stringify(JSON.parse(text))),
    { numRuns, seed },
  )
})
