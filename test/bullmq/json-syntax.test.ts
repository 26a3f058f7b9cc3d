/** The check for JSON agrees with JSON.parse, and builds nothing. */
import t from 'tap'
import { isJson, jsonShape, jsonStringBytes, jsonText, jsonWithin } from '../../src/bullmq/json-syntax.ts'

function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Pseudo-random, the same in every run. */
function random(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

t.test('a text is JSON if and only if JSON.parse accepts it', async (t) => {
  const texts = [
    '', ' ', '0', '-0', '00', '01', '-', '+1', '1.', '.5', '1.5', '1e5', '1E+5', '1e', '1e-', '1.5e-10', '-1', 'NaN', 'Infinity',
    'true', 'tru', 'truex', 'false', 'null', 'nul', 'undefined', '""', '"', '"a', '"\\"', '"\\u00e9"', '"\\u00g0"', '"\\u00', '"\\x"',
    '"\\\\"', '"\n"', '"\u2028"', '"\u007f"', '"\ud800"', '[]', '[', ']', '[1,]', '[,1]', '[1 2]', '[[],[]]', '[ ]', '{}', '{', '{"a"}',
    '{"a":}', '{"a":1,}', '{a:1}', '{"a":1 "b":2}', '{"a":1,"b":[{"c":null}]}', '{"__proto__":1}', '[}', '{]', ' [1] ', '\t1\n', '\u00a01',
    '\ufeff1', '1 1', '{}{}', '[]]', '/**/1', "'a'", '{"a":1}}', '[1}', '"a" "b"', '--1', '1-', '0x1', '1_0', '{oops', 'half',
  ] // biome-ignore format: a list to read, not a column
  t.same(
    texts.filter((text) => isJson(text) !== parses(text)),
    [],
  )
})

t.test('random edits of JSON are judged as JSON.parse judges them', async (t) => {
  const next = random(7)
  const base = '{"a":[1,-2.5e+3,"x\\n\\u00e9\\"",true,null,{}],"b":{"c":[[],["d"]]}, "e" : false}'
  const pieces = [...'{}[]",:\\0123456789.eE+-utrfalsn \n\u0001\u2028é']
  let valid = 0
  for (let turn = 0; turn < 20_000; turn++) {
    let text = base.slice(next(base.length / 2), base.length - next(base.length / 2))
    if (turn % 3 === 0) text = base
    for (let edits = next(3); edits > 0; edits--) {
      const at = next(text.length + 1)
      text = text.slice(0, at) + pieces[next(pieces.length)] + text.slice(at + next(2))
    }
    if (parses(text)) valid++
    if (isJson(text) !== parses(text)) t.fail(text)
  }
  t.ok(valid > 300, `${valid} of them were valid`)
})

t.test('an array of strings alone is distinguished from other JSON', async (t) => {
  for (const text of ['[]', '["a"]', ' [ "a" , "b\\n" ] ']) t.equal(jsonShape(text), 'texts', text)
  for (const text of ['[1]', '["a",null]', '["a",["b"]]', '[[]]', '[{}]', '{}', '"a"', 'null', '{"a":"b"}'])
    t.equal(jsonShape(text), 'other', text)
  t.equal(jsonShape('["a"'), undefined)
})

t.test('nesting beyond a thousand levels is not JSON, and costs no stack', async (t) => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  t.ok(isJson(nested(1_000)))
  t.notOk(isJson(nested(1_001)))
  t.notOk(isJson('['.repeat(4_000_000)))
  t.notOk(isJson('{"a":'.repeat(1_000_000)))
})

t.test('the bytes of a JSON string are those of JSON.stringify', async (t) => {
  const texts = [
    '',
    'a',
    '"\\/',
    '\b\t\n\f\r\v\u0000\u001f\u007f',
    'é€😀',
    '\ud800',
    '\udc00x',
    '\ud800\ud800\udc00',
    '\u2028',
  ]
  t.same(
    texts.filter((text) => jsonStringBytes(text) !== Buffer.byteLength(JSON.stringify(text))),
    [],
  )
})

t.test('what is longer than the limit is not made', async (t) => {
  t.equal(jsonWithin('{"a":1}', 7), '{"a":1}')
  t.equal(jsonWithin('{"a":1}', 6), undefined)
  t.equal(jsonWithin('"é"', 4), '"é"')
  t.equal(jsonWithin('"é"', 3), undefined)
  t.equal(jsonWithin('half', 6), '"half"')
  t.equal(jsonWithin('half', 5), undefined)
  t.equal(jsonWithin('\u0001', 8), '"\\u0001"')
  t.equal(jsonWithin('\u0001', 7), undefined)
})

t.test('a text of any size is passed through if it is JSON, and quoted if it is not', async (t) => {
  const long = 'x'.repeat(100_000)
  t.equal(jsonText(`{"a":"${long}"}`), `{"a":"${long}"}`)
  t.equal(jsonText(`{"a":"${long}"`), JSON.stringify(`{"a":"${long}"`))
  t.equal(jsonText(''), '""')
})
