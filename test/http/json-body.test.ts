import t, { type Test } from 'tap'
import { parseJson } from '../../src/http/json-body.ts'

const arrays = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
const objects = (levels: number) => `${'{"a":'.repeat(levels - 1)}{}${'}'.repeat(levels - 1)}`
const mixed = (levels: number) =>
  Array.from({ length: levels / 2 }).reduce<string>((inner) => `{"a":[${inner}]}`, '')
const refuses = (t: Test, text: string, code: string) =>
  t.throws(() => parseJson(text), { code }, text.slice(0, 60))

t.test('JSON is read as JSON', async (t) => {
  for (const text of ['null', '0', '"x"', '[]', ' {"a" : [1, true, "\\u00e9"]}\n']) {
    t.same(parseJson(text), JSON.parse(text))
  }
  t.same(parseJson('\ufeff{"a":1}'), { a: 1 }, 'with a byte order mark too')
})

t.test('64 levels are read and one more is refused, of arrays, objects or both', async (t) => {
  for (const nest of [arrays, objects, mixed]) t.same(parseJson(nest(64)), JSON.parse(nest(64)))
  refuses(t, arrays(65), 'JSON_TOO_DEEP')
  refuses(t, objects(65), 'JSON_TOO_DEEP')
  refuses(t, mixed(66), 'JSON_TOO_DEEP')
  refuses(t, `[${mixed(64)}]`, 'JSON_TOO_DEEP')
  refuses(t, `[1, "x", ${arrays(64)}]`, 'JSON_TOO_DEEP')
  refuses(t, arrays(100_000), 'JSON_TOO_DEEP')
})

t.test('levels are counted down as well: many side by side are not deep', async (t) => {
  const wide = `[${Array(500)
    .fill(`${arrays(63)},${objects(63)}`)
    .join()}]`
  t.equal((parseJson(wide) as unknown[]).length, 1_000)
})

t.test('brackets inside of strings do not count, however the quotes are escaped', async (t) => {
  const brackets = '[{'.repeat(200)
  const strings = [
    brackets,
    `\\"${brackets}`,
    `${brackets}\\\\`,
    `\\\\\\"${brackets}`,
    `"${brackets}"`,
    `${brackets}\\`,
  ]
  for (const string of strings) {
    const value = { [string]: string, after: [string] }
    t.same(parseJson(JSON.stringify(value)), value)
  }
})

t.test('a string that ends in a backslash hides no brackets behind it', async (t) => {
  for (const string of ['\\', '\\\\', '"', '\\"', '"\\']) {
    refuses(t, `[${JSON.stringify(string)}, ${arrays(64)}]`, 'JSON_TOO_DEEP')
  }
})

t.test(
  'a key that reaches for a prototype is refused, however it is spelled and wherever it is',
  async (t) => {
    const texts = [
      '{"__proto__":{"admin":true}}',
      '{"__proto__" : null}',
      '{"a":[{"b":{"__proto__":1}}]}',
      '{"\\u005f\\u005fproto\\u005f\\u005f":1}',
      '{"_\\u005Fproto__":1}',
      '{"\\u005f_pr\\u006fto__":1}',
      '{"constructor":{"prototype":{"admin":true}}}',
      '{"a":{"constructor":{"prototype":null}}}',
      '{"c\\u006fnstructor":{"prot\\u006ftype":1}}',
    ]
    for (const text of texts) refuses(t, text, 'FORBIDDEN_KEY')
  },
)

t.test('the same words where they do no harm are let through', async (t) => {
  for (const text of [
    '{"a":"__proto__"}',
    '{"constructor":1}',
    '{"constructor":{}}',
    '{"prototype":{}}',
    '["__proto__"]',
  ]) {
    t.same(parseJson(text), JSON.parse(text))
  }
  t.same(parseJson('{"a":"\\"__proto__\\":1"}'), { a: '"__proto__":1' })
})

t.test('no body at all is told apart from one that is not JSON', async (t) => {
  refuses(t, '', 'EMPTY_BODY')
  const broken = [' ', '{', '{"a":}', "{'a':1}", '[1,]', 'undefined', '{"a":1}{"b":2}', '"\u0001"', 'NaN']
  for (const text of broken) refuses(t, text, 'INVALID_JSON')
  refuses(t, `${'x'.repeat(500)}"`, 'INVALID_JSON')
  refuses(t, ']'.repeat(500), 'INVALID_JSON')
  refuses(t, `"${'['.repeat(500)}`, 'INVALID_JSON')
  t.throws(() => parseJson('{"a":}'), { message: /\. Send one JSON value in UTF-8\.$/ })
})
