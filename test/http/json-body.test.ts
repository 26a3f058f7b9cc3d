/** The JSON parser: depth, forbidden keys, and which error each invalid body gets. */
import t, { type Test } from 'tap'
import { MAX_DEPTH } from '../../src/http/json-body.ts'
import { createJsonScanner } from '../../src/json/json-scanner.ts'

const scanner = createJsonScanner({ maxDepth: MAX_DEPTH })
const parseJson = (text: string) => scanner.scan(Buffer.from(text))

const arrays = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
const objects = (levels: number) => `${'{"a":'.repeat(levels - 1)}{}${'}'.repeat(levels - 1)}`
const mixed = (levels: number) =>
  Array.from({ length: levels / 2 }).reduce<string>((inner) => `{"a":[${inner}]}`, '')
const rejects = (t: Test, text: string, code: string) =>
  t.throws(() => parseJson(text), { code }, text.slice(0, 60))

t.test('valid JSON is parsed like JSON.parse', async (t) => {
  for (const text of ['null', '0', '"x"', '[]', ' {"a" : [1, true, "\\u00e9"]}\n']) {
    t.same(parseJson(text), JSON.parse(text))
  }
  t.same(parseJson('\ufeff{"a":1}'), { a: 1 }, 'a byte order mark is ignored')
})

t.test('64 levels of arrays, objects or both are accepted, and 65 are rejected', async (t) => {
  for (const nest of [arrays, objects, mixed]) t.same(parseJson(nest(64)), JSON.parse(nest(64)))
  rejects(t, arrays(65), 'JSON_TOO_DEEP')
  rejects(t, objects(65), 'JSON_TOO_DEEP')
  rejects(t, mixed(66), 'JSON_TOO_DEEP')
  rejects(t, `[${mixed(64)}]`, 'JSON_TOO_DEEP')
  rejects(t, `[1, "x", ${arrays(64)}]`, 'JSON_TOO_DEEP')
  rejects(t, arrays(100_000), 'JSON_TOO_DEEP')
})

t.test('many values side by side are not deep', async (t) => {
  const wide = `[${Array(500)
    .fill(`${arrays(63)},${objects(63)}`)
    .join()}]`
  t.equal((parseJson(wide) as unknown[]).length, 1_000)
})

t.test('brackets inside strings do not count, however the quotes are escaped', async (t) => {
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

t.test('a string that ends in a backslash does not hide the brackets after it', async (t) => {
  for (const string of ['\\', '\\\\', '"', '\\"', '"\\']) {
    rejects(t, `[${JSON.stringify(string)}, ${arrays(64)}]`, 'JSON_TOO_DEEP')
  }
})

t.test('a key that could reach a prototype is rejected, in any spelling and at any depth', async (t) => {
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
  for (const text of texts) rejects(t, text, 'FORBIDDEN_KEY')
})

t.test('the same words are accepted where they are harmless', async (t) => {
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

t.test('an empty body and invalid JSON have different codes', async (t) => {
  rejects(t, '', 'EMPTY_BODY')
  const broken = [' ', '{', '{"a":}', "{'a':1}", '[1,]', 'undefined', '{"a":1}{"b":2}', '"\u0001"', 'NaN']
  for (const text of broken) rejects(t, text, 'INVALID_JSON')
  rejects(t, `${'x'.repeat(500)}"`, 'INVALID_JSON')
  rejects(t, ']'.repeat(500), 'INVALID_JSON')
  rejects(t, `"${'['.repeat(500)}`, 'INVALID_JSON')
  t.throws(() => parseJson('{"a":}'), { message: /\. Send one JSON value in UTF-8\.$/ })
})
