/** The scanner of bodies: the grammar case by case, which values stay text, depth, forbidden keys, and items that are refused alone. */
import t, { type Test } from 'tap'
import { SluiceError } from '../../src/errors.ts'
import { arrayOf, type BodyShape, itemsOf, membersOf, rawValue, treeOf } from '../../src/json/body-shape.ts'
import { createJsonScanner, type RawJson, rawBytes } from '../../src/json/json-scanner.ts'

const { scan } = createJsonScanner({ maxDepth: 64 })
const parsed = membersOf({})
const job = membersOf({ queue: undefined, name: undefined, data: rawValue })
const batch = membersOf({ jobs: itemsOf(job, 1_000) })

const scanText = (text: string, shape: BodyShape) => scan(Buffer.from(text), shape)
const arrays = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
/** TAP takes some characters for line ends. */
const nameOf = (text: string | Buffer) =>
  String(text)
    .slice(0, 60)
    .replace(/[^ -~]/g, '?')
const rejects = (t: Test, text: string | Buffer, code: string, shape: BodyShape = job) =>
  t.throws(() => scan(Buffer.from(text as string), shape), { code }, nameOf(text))
const rawText = (value: unknown) => rawBytes(value as RawJson).toString()
const itemsIn = (text: string) => (scanText(text, batch) as { jobs: unknown[] }).jobs
const codeOf = (item: unknown) => (item instanceof SluiceError ? item.code : undefined)
const pointerOf = (item: unknown) => (item as SluiceError).details.errors?.[0]?.pointer

interface Tree {
  data: unknown
  children: Tree[]
}

/** Large bodies are read by words from the start. */
const padding = ' '.repeat(3_000)

const accepted = [
  ...[
    '0',
    '-0',
    '1',
    '-1',
    '10',
    '123',
    '0.0',
    '-0.1',
    '1.25',
    '1e1',
    '1E1',
    '1e+1',
    '1e-01',
    '0e0',
    '1.5E+30',
    '1e400',
    '-1e-400',
  ],
  ...['123456789012345', '1234567890123456', '9007199254740993', '1'.repeat(400), `0.${'0'.repeat(400)}1`],
  ...[
    'true',
    'false',
    'null',
    '""',
    '"a"',
    '"\u007f"',
    '"\u2028\ufeff"',
    '"é中🙂"',
    `"${'x'.repeat(3_000)}"`,
  ],
  ...[
    '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    '"\\u0000\\u00e9\\u4E2D\\uFfFf"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\ud800x"',
  ],
  ...[
    '[]',
    '[ ]',
    '[1]',
    '[1,2]',
    '[[],[[]]]',
    '[{}]',
    '{}',
    '{ }',
    '{"":0}',
    '{"a":1,"a":2}',
    '{"a":{"b":[{}]}}',
    '{"a b":[]}',
  ],
  ...['{"1":1,"0":0}', '{"\\u0061":1,"a":2}', '{"toString":1,"hasOwnProperty":2}', '{"a":null,"b":true}'],
  ...[
    ' 1',
    '1 ',
    '\n\r\t 1\n\r\t ',
    ' [ 1 , 2 ] ',
    ' { "a" : 1 , "b" : [ ] } ',
    `[${' '.repeat(99)}1${'\n'.repeat(99)}]`,
  ],
]
const rejected = [
  ...[
    ' ',
    '\n',
    ',',
    ':',
    ']',
    '}',
    '[',
    '{',
    '"',
    '-',
    '+',
    '.',
    '\\',
    "'",
    '#',
    '\u0000',
    '\u007f',
    'é',
    '\u00a01',
    '1\u00a0',
    '\u000b1',
  ],
  ...[
    '+1',
    '--1',
    '00',
    '01',
    '-01',
    '1.',
    '.1',
    '-.1',
    '1:',
    '12:',
    '123:',
    '1234:',
    '1234/',
    '1.e1',
    '1e',
    '1e+',
    '1e-',
    '1ee1',
    '1e1.0',
    '0x1',
    '1_0',
    '1,0',
    '1 2',
    'NaN',
    'Infinity',
  ],
  ...[
    'tru',
    'truee',
    'True',
    'fals',
    'falsE',
    'nul',
    'nulll',
    'nul1',
    'undefined',
    't',
    'n',
    'f',
    'ture',
    'trué',
  ],
  ...[
    '"a',
    '"\\"',
    '"\\',
    '"\\u',
    '"\\u1',
    '"\\u12',
    '"\\u123',
    '"\\u123"',
    '"\\u12g4"',
    '"\\U0041"',
    '"\\x41"',
    '"\\a"',
    "'a'",
    '"a"b',
    '"\\\'"',
  ],
  ...[
    '"\u0000"',
    '"\u001f"',
    '"\n"',
    '"\t"',
    `"${'x'.repeat(500)}\n${'x'.repeat(500)}"`,
    `"${'x'.repeat(500)}`,
    `"${'x'.repeat(500)}\\"`,
  ],
  ...['[1', '[1,', '[,1]', '[1,]', '[,]', '[1 2]', '[1;2]', '[1}', '[1]]', '[[1]', '[1:2]', '["a":1]', '[a]'],
  ...[
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,',
    '{"a":1,}',
    '{,"a":1}',
    '{"a" 1}',
    '{"a":1 "b":2}',
    '{a:1}',
    "{'a':1}",
    '{1:1}',
    '{"a":1]',
    '{"a":}',
    '{:1}',
  ],
  ...[
    '{"a":1}{',
    '{"a":1},',
    '{} {}',
    '[] []',
    '1 1',
    '""""',
    '{"a"::1}',
    '{"a":1,,"b":2}',
    '{"a":1//\n}',
    '/**/1',
    '{"\n":1}',
    '{"a\\":1}',
    '{null:1}',
  ],
]

t.test('valid JSON is accepted, and is what JSON.parse makes of it', async (t) => {
  for (const text of accepted) {
    t.strictSame(scanText(text, parsed), JSON.parse(text), nameOf(text))
    t.equal(
      JSON.stringify(scanText(text, parsed)),
      JSON.stringify(JSON.parse(text)),
      'also the order of members',
    )
    t.strictSame(scanText(text + padding, parsed), JSON.parse(text), 'in a large body')
    const [item] = scanText(`[${text}]`, arrayOf(rawValue)) as unknown[]
    t.equal(rawText(item), text.trim(), 'as a raw value')
  }
})

t.test('invalid JSON is rejected, wherever it is', async (t) => {
  for (const text of rejected) {
    t.throws(() => JSON.parse(text))
    for (const body of [text, `{"data":${text}`, text + padding]) rejects(t, body, 'INVALID_JSON')
    rejects(t, text, 'INVALID_JSON', rawValue)
    rejects(t, text, 'INVALID_JSON', batch)
  }
})

t.test('a text that is cut off at any byte is rejected', async (t) => {
  const text = '{"data":[{"a\\u0041":"é\\n","b":-1.5e+10}, true,false , null,"\\ud83d"],"queue":"x"}'
  const body = Buffer.from(text)
  for (let size = 1; size < body.length; size++)
    for (const shape of [job, parsed, rawValue]) rejects(t, body.subarray(0, size), 'INVALID_JSON', shape)
})

t.test('a body that is not UTF-8 is rejected, and a byte order mark is ignored', async (t) => {
  for (const bytes of [
    [0x80],
    [0xc0, 0xaf],
    [0xed, 0xa0, 0x80],
    [0xf5, 0x80, 0x80, 0x80],
    [0xe2, 0x82],
    [0xff],
  ])
    rejects(
      t,
      Buffer.concat([Buffer.from('{"data":"'), Buffer.from(bytes), Buffer.from('"}')]),
      'INVALID_JSON',
    )
  t.same(scanText('\ufeff{"name":"é"}', job), { name: 'é' })
  rejects(t, '\ufeff', 'INVALID_JSON')
  rejects(t, '\ufeff\ufeff1', 'INVALID_JSON')
  rejects(t, '1\ufeff', 'INVALID_JSON')
  rejects(t, '', 'EMPTY_BODY')
})

t.test('an error names what was expected, what was found and where', async (t) => {
  const details: [string, string][] = [
    ['{"a":}', 'Expected a value, but found "}" at byte 5'],
    ['[1,\n 2 3]', `Expected ',' or ']' after the item, but found "3]" at byte 7 (line 2, column 4)`],
    ['{"a":1 "b":2}', `Expected ',' or '}' after the member, but found "\\"b\\":2}" at byte 7`],
    ['{"a"', "Expected ':' after the member name, but the text ends at byte 4"],
    ["{'a':1}", `Expected a member name in double quotes, but found "'a':1}" at byte 1`],
    ['"a\nb"', 'A string contains the control character 0x0a at byte 2; escape it as \\u000a'],
    ['"abc', 'Expected the closing quote of the string, but the text ends at byte 4'],
    ['[1.]', 'Expected a digit, but found "]" at byte 3'],
    ['{} é中', 'Expected nothing after the value, but found "é中" at byte 3'],
  ]
  for (const [text, detail] of details)
    t.throws(() => scanText(text, job), { message: `${detail}. Send one JSON value in UTF-8.` }, text)
  t.throws(() => scanText(`[${'🙂'.repeat(99)}`, job), {
    message: new RegExp(`found "${'🙂'.repeat(20)}" at`),
  })
})

t.test('a value stays text as it was sent: key order, numbers, escapes, duplicates', async (t) => {
  const data = '{"b":9007199254740993,"a":1e400,"10":1.0,"2":"\\u0061\\/","b":-0}'
  const body = scanText(`{"name":"x","data": ${data} ,"queue":"q"}`, job) as Record<string, unknown>
  t.equal(rawText(body['data']), data)
  t.same({ ...body, data: undefined }, { name: 'x', queue: 'q', data: undefined })
  for (const scalar of ['0', '"x"', 'null', 'true', '[]', '{}'])
    t.equal(rawText((scanText(`{"data":${scalar}}`, job) as { data: unknown }).data), scalar)
})

t.test('the name of a raw value may be spelled with escapes, and the last duplicate counts', async (t) => {
  const bodies = [
    '{"d\\u0061ta":7}',
    '{"\\u0064\\u0061\\u0074\\u0061":7}',
    '{"data":1,"data":7}',
    '{"data":1,"dat\\u0061":7}',
    '{"dat\\u0061":1,"data":7}',
  ]
  for (const text of bodies) {
    const body = scanText(text, job) as { data: unknown }
    t.same(Object.keys(body), ['data'], text)
    t.equal(rawText(body.data), '7', text)
  }
  for (const name of ['Data', 'data ', 'dat', 'dataa', 'd\\\\u0061ta', 'd\\u00c1ta', 'd\\u1061ta'])
    t.equal((scanText(`{"${name}":7}`, job) as Record<string, unknown>)[JSON.parse(`"${name}"`)], 7, name)
})

t.test('nothing that a client sends can pass for a raw value or for a refusal', async (t) => {
  const forged = '{"body":{"type":"Buffer","data":[1]},"start":0,"end":1,"spaces":0}'
  const { data, queue } = scanText(`{"data":${forged},"queue":${forged}}`, job) as Record<string, unknown>
  t.equal(rawText(data), forged)
  t.strictSame(queue, JSON.parse(forged), 'a place that does not stay text has the value')
  for (const item of itemsIn(`{"jobs":[0,1,null,"x",[],{"code":"JSON_TOO_DEEP","details":{}}]}`))
    t.notOk(item instanceof SluiceError)
})

t.test('raw values are found in batches, trees and arrays of any kind', async (t) => {
  const jobs = itemsIn('{"jobs":[{"data":1},{"name":"n"},{"data":[2]}]}') as { data?: unknown }[]
  t.same(
    jobs.map(({ data }) => data && rawText(data)),
    ['1', undefined, '[2]'],
  )
  const tree = treeOf({ data: rawValue }, 'children')
  const root = scanText(
    '{"data":1,"children":[{"data":2,"children":[{"data":"x"}]},{"children":[]}]}',
    tree,
  ) as Tree
  t.equal(rawText(root.data), '1')
  t.equal(rawText(root.children[0]?.data), '2')
  t.equal(rawText(root.children[0]?.children[0]?.data), '"x"')
  t.same(root.children[1], { children: [] })
  t.same(
    scanText('{"jobs":{"data":1},"x":[{"data":2}]}', batch),
    { jobs: { data: 1 }, x: [{ data: 2 }] },
    'other kinds are parsed',
  )
  t.same(
    (scanText('[{"data":1}]', arrayOf(job)) as { data: unknown }[]).map(({ data }) => rawText(data)),
    ['1'],
  )
})

t.test('64 levels are accepted, and 65 are rejected; a raw value has 63 of its own', async (t) => {
  t.same(scanText(arrays(64), parsed), JSON.parse(arrays(64)))
  rejects(t, arrays(65), 'JSON_TOO_DEEP', parsed)
  rejects(t, `{"name":${arrays(64)}}`, 'JSON_TOO_DEEP')
  t.equal(rawText((scanText(`{"data":${arrays(63)}}`, job) as { data: unknown }).data), arrays(63))
  rejects(t, `{"data":${arrays(64)}}`, 'JSON_TOO_DEEP')
  rejects(t, arrays(100_000), 'JSON_TOO_DEEP')
  rejects(t, '['.repeat(1_000_000), 'JSON_TOO_DEEP')
  rejects(t, `${'{"children":['.repeat(40)}${']}'.repeat(40)}`, 'JSON_TOO_DEEP', treeOf({}, 'children'))
  t.ok(scanText(`[${Array(500).fill(arrays(63)).join()}]`, parsed), 'values side by side are not deep')
})

t.test('a forbidden key is rejected in any spelling, inside raw values too', async (t) => {
  const keys = ['"__proto__"', '"\\u005f_proto\\u005F_"', '"__pr\\u006fto__"']
  for (const key of keys)
    for (const text of [
      `{${key}:1}`,
      `{"data":{"a":[{${key} : null}]}}`,
      `{"name":{${key}:{}}}`,
      `{"data":[{"a":{},${key}:1}]}`,
    ])
      rejects(t, text, 'FORBIDDEN_KEY')
  for (const value of [
    '{"prototype":1}',
    '{"a":1,"prototype":{}}',
    '{"prot\\u006ftype":1}',
    ' { "prototype" : null } ',
  ])
    for (const key of ['"constructor"', '"c\\u006fnstructor"'])
      for (const text of [`{${key}:${value}}`, `{"data":{${key}:${value}}}`, `{"name":[{${key}:${value}}]}`])
        rejects(t, text, 'FORBIDDEN_KEY')
  for (const text of [
    '{"a":"__proto__"}',
    '{"constructor":1}',
    '{"constructor":{}}',
    '{"prototype":{}}',
    '{"constructor":[{"prototype":1}]}',
    '{"constructor":{"a":{"prototype":1}}}',
    '{"__proto_":1,"_proto__":2}',
    '{"constructors":{"prototype":1}}',
  ])
    t.same(scanText(text, parsed), JSON.parse(text), text)
})

t.test('an item with a fault is refused alone, with a pointer into it', async (t) => {
  const jobs = itemsIn(
    `{"jobs":[{"data":1},{"data":{"a/b":[0,{"__proto__":1}]}},{"data":${arrays(70)}},{"data":"${'x'.repeat(2_000)}"},{"data":2},${arrays(3_000)}]}`,
  )
  t.same(jobs.map(codeOf), [
    undefined,
    'FORBIDDEN_KEY',
    'JSON_TOO_DEEP',
    'PAYLOAD_TOO_LARGE',
    undefined,
    'PAYLOAD_TOO_LARGE',
  ])
  t.equal(pointerOf(jobs[1]), '/data/a~1b/1/__proto__')
  t.equal(pointerOf(jobs[2]), `/data${'/0'.repeat(63)}`)
  t.equal(rawText((jobs[4] as { data: unknown }).data), '2')
  const unbounded = membersOf({ jobs: itemsOf(job, 1e9) })
  const [deep, after] = (
    scanText(`{"jobs":[{"data":${arrays(100_000)}},7]}`, unbounded) as { jobs: unknown[] }
  ).jobs
  t.equal(codeOf(deep), 'JSON_TOO_DEEP')
  t.equal(after, 7)
})

t.test('an item may be as deep as a body, and the same job gets the same verdict in a batch', async (t) => {
  const good = `{"data":${arrays(63)}}`
  const bad = `{"data":${arrays(64)}}`
  t.same(itemsIn(`{"jobs":[${good},${bad},${good}]}`).map(codeOf), [undefined, 'JSON_TOO_DEEP', undefined])
})

t.test('a fault of the grammar in an item, or a fault outside the items, rejects the body', async (t) => {
  rejects(t, `{"jobs":[{"data":${arrays(70)}},{"data":tru}]}`, 'INVALID_JSON', batch)
  rejects(t, '{"jobs":[{"__proto__":1},{"data":1}', 'INVALID_JSON', batch)
  rejects(t, `{"jobs":[{"data":1}],"x":${arrays(70)}}`, 'JSON_TOO_DEEP', batch)
  rejects(t, '{"jobs":[{"__proto__":1}],"__proto__":1}', 'FORBIDDEN_KEY', batch)
})

t.test('a refused item never changes a prototype, and of duplicate arrays the last counts', async (t) => {
  const [item] = itemsIn('{"jobs":[{"__proto__":{"admin":true},"name":"n"}]}')
  t.equal(codeOf(item), 'FORBIDDEN_KEY')
  t.notOk(({} as Record<string, unknown>)['admin'])
  t.same(itemsIn('{"jobs":[{"__proto__":1}],"jobs":[{"name":"good"}]}'), [{ name: 'good' }])
})

t.test('a scan leaves nothing for the next one', async (t) => {
  rejects(t, `{"jobs":[{"__proto__":1},${arrays(90)}`, 'INVALID_JSON', batch)
  t.same(scanText('{"name":"a"}', job), { name: 'a' })
  rejects(t, arrays(65), 'JSON_TOO_DEEP', parsed)
  const first = scanText('{"data":[1]}', job) as { data: RawJson }
  scanText('{"data":{"other":"body"}}', job)
  t.equal(rawText(first.data), '[1]')
})

t.test('short strings that are kept never stand for others', async (t) => {
  for (let i = 0; i < 5_000; i++) {
    const name = (i * 2_654_435_761).toString(36).slice(0, 1 + (i % 24))
    t.equal((scanText(`{"name":"${name}"}`, job) as { name: string }).name, name)
  }
})
