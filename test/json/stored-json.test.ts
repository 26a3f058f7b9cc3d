/** The check of stored text agrees with JSON.parse, allows every member name, and gives out JSON unchanged. */
import t from 'tap'
import { jsonStringBytes } from '../../src/json/json-string.ts'
import { createStoredJson } from '../../src/json/stored-json.ts'

const { isJson, isTexts, asJson, jsonWithin } = createStoredJson()
const isJsonText = (text: string) => isJson(Buffer.from(text))

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
    '"\\\\"', '"\n"', '"\u2028"', '"\u007f"', '"\\ud800"', '[]', '[', ']', '[1,]', '[,1]', '[1 2]', '[[],[]]', '[ ]', '{}', '{', '{"a"}',
    '{"a":}', '{"a":1,}', '{a:1}', '{"a":1 "b":2}', '{"a":1,"b":[{"c":null}]}', '[}', '{]', ' [1] ', '\t1\n', '\u00a01', '\ufeff1',
    '1 1', '{}{}', '[]]', '/**/1', "'a'", '{"a":1}}', '[1}', '"a" "b"', '--1', '1-', '0x1', '1_0', '{oops', 'half', 'plain text',
    '1970670598291982290', '1e400', '{"a":1,"a":2}', '{"é":"😀"}', '[1,\n 2]', '\0', '"\0"',
  ] // biome-ignore format: a list to read, not a column
  t.same(
    texts.filter((text) => isJsonText(text) !== parses(text)),
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
    if (isJsonText(text) !== parses(text)) t.fail(text)
  }
  t.ok(valid > 300, `${valid} of them were valid`)
})

t.test('nesting beyond a thousand levels is not JSON, and costs no stack', async (t) => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  t.ok(isJsonText(nested(1_000)))
  t.notOk(isJsonText(nested(1_001)))
  t.notOk(isJsonText('['.repeat(4_000_000)))
  t.notOk(isJsonText('{"a":'.repeat(1_000_000)))
})

t.test('a name that no client may send is allowed, and hides no other fault', async (t) => {
  const forbidden = '"__proto__":1,"constructor":{"prototype":{}}'
  t.ok(isJsonText(`{${forbidden}}`))
  t.ok(isJsonText(`{"\\u005f_proto__":0}`))
  t.notOk(isJsonText(`{${forbidden},"a":${'['.repeat(1_000)}${']'.repeat(1_000)}}`))
  t.notOk(isJsonText(`{${forbidden}`))
})

t.test('JSON is given out as the same bytes', async (t) => {
  for (const text of [
    '{"id":1970670598291982290}',
    '1e400',
    ' -0\n',
    '{"a":1,"a":"\\ud800\\/"}',
    '{"b":1,"a":"é😀"}',
  ]) {
    const bytes = Buffer.from(text)
    t.equal(asJson(bytes), bytes, text)
  }
})

t.test('any other text is given out as a JSON string', async (t) => {
  const long = 'x'.repeat(100_000)
  for (const text of [
    '',
    'half',
    '{"a":1',
    'tab\t"quotes" \\ é😀 \u2028',
    '\ufeff{}',
    `{"a":"${long}`,
    '['.repeat(1_001),
  ])
    t.equal(asJson(Buffer.from(text)).toString(), JSON.stringify(text), text.slice(0, 20))
})

t.test('bytes that are not UTF-8 are read as the workers of BullMQ read them', async (t) => {
  const broken = Buffer.from('{"a":"x\xff\xc3"}', 'latin1')
  t.notOk(isJson(broken))
  t.equal(asJson(broken).toString(), '{"a":"x\ufffd\ufffd"}')
  t.equal(asJson(Buffer.from('half\xff', 'latin1')).toString(), '"half\ufffd"')
})

t.test('an array of strings alone is distinguished from other JSON', async (t) => {
  const isArrayOfTexts = (text: string) => isTexts(Buffer.from(text))
  for (const text of ['[]', ' [\n] ', '["a"]', ' [ "a" , "b\\n" ] ', '["é😀"]'])
    t.ok(isArrayOfTexts(text), text)
  const others =
    '[1] ["a",null] ["a",["b"]] [[]] [{}] {} "a" null {"a":"b"} ["a" ["a",] ["a""b"] ["a"]1 [,] [ ["\\x"] half'
  for (const text of [...others.split(' '), '', '["a\n"]']) t.notOk(isArrayOfTexts(text), text)
  t.notOk(isTexts(Buffer.from('["\xff"]', 'latin1')), 'not UTF-8')
})

t.test('what is longer than the limit is not made', async (t) => {
  const within = (text: string, maxBytes: number) => jsonWithin(Buffer.from(text), maxBytes)?.toString()
  t.equal(within('{"a":1}', 7), '{"a":1}')
  t.equal(within('{"a":1}', 6), undefined)
  t.equal(within('"é"', 4), '"é"')
  t.equal(within('"é"', 3), undefined)
  t.equal(within('half', 6), '"half"')
  t.equal(within('half', 5), undefined)
  t.equal(within('\u0001', 8), '"\\u0001"')
  t.equal(within('\u0001', 7), undefined)
  const broken = Buffer.from('"\xff"', 'latin1')
  t.equal(jsonWithin(broken, 5)?.toString(), '"\ufffd"')
  t.equal(jsonWithin(broken, 4), undefined)
})

t.test('the bytes of a JSON string are those of JSON.stringify', async (t) => {
  const texts = ['', 'a', '"\\/', '\b\t\n\f\r\v\0\x1f\x7f', 'é€😀', '\ud800', '\udc00x', '\ud800\ud800\udc00', '\u2028'] // biome-ignore format: a list
  t.same(
    texts.filter((text) => jsonStringBytes(text) !== Buffer.byteLength(JSON.stringify(text))),
    [],
  )
})
