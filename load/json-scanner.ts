/**
 * Compares the scanner of bodies with JSON.parse of the same bytes: `npx tsx load/json-scanner.ts [part of a name]`. CPU time,
 * median of alternating runs; also for the canonical text of the body. `whole`: the body is one value that stays text; other inputs are parsed as the routes parse them.
 */
import { argv, cpuUsage, stdout } from 'node:process'
import { type BodyShape, itemsOf, membersOf, rawValue } from '../src/json/body-shape.ts'
import { createJsonTexts } from '../src/json/canonical-text.ts'
import { createJsonScanner, type RawJson } from '../src/json/json-scanner.ts'

interface Input {
  name: string
  text: string
  shape: BodyShape
}

const scanner = createJsonScanner({ maxDepth: 64 })
const texts = createJsonTexts()
const retention = membersOf({ age: undefined, count: undefined })
const opts = membersOf({
  attempts: undefined,
  backoff: membersOf({ type: undefined, delay: undefined }),
  removeOnComplete: retention,
})
const job = membersOf({ queue: undefined, name: undefined, data: rawValue, opts })
const batch = membersOf({ jobs: itemsOf(job, 1_048_576) })

const KIB = 1_024
const fill = (piece: string, bytes: number) => piece.repeat(Math.ceil(bytes / Buffer.byteLength(piece)))
const listOf = (item: string, bytes: number) => `[${fill(`${item},`, bytes)}${item}]`
const whole = (name: string, text: string): Input => ({ name, text, shape: rawValue })

function order(lines: number): unknown {
  const line = { sku: 'A-1001', title: 'an ordinary line of an order', qty: 3, price: 12.5, tags: ['a', 'b'] }
  return { items: Array(lines).fill(line) }
}

function jobText(data: unknown): string {
  return JSON.stringify({ queue: 'emails', name: 'welcome', data })
}

function numbers(count: number, next: (i: number) => number): string {
  return JSON.stringify(Array.from({ length: count }, (_, i) => next(i)))
}

const email = { to: 'ann@example.com', subject: 'Welcome', template: 'welcome-2', locale: 'en-GB' }
const inputs: Input[] = [
  { name: 'job of 100 bytes', text: jobText({ to: 'ann@example.com', locale: 'en-GB' }), shape: job },
  {
    name: 'job of 200 bytes',
    text: jobText({ ...email, ref: 'order-1009231', retries: 3, tags: ['a', 'b'] }),
    shape: job,
  },
  {
    name: 'job of 300 bytes, with options',
    text: JSON.stringify({
      queue: 'emails',
      name: 'welcome',
      opts: {
        attempts: 3,
        backoff: { type: 'exponential', delay: 1000 },
        removeOnComplete: { age: 3600, count: 1000 },
      },
      data: { ...email, ref: 'order-1009231', tags: ['a', 'b'] },
    }),
    shape: job,
  },
  { name: 'job of 100 bytes, a string', text: jobText('x'.repeat(60)), shape: job },
  { name: 'job of 1 KB', text: jobText(order(10)), shape: job },
  { name: 'job of 11 KB', text: jobText(order(110)), shape: job },
  { name: 'job of 225 KB', text: jobText(order(2_250)), shape: job },
  {
    name: 'batch of 1,000 × 100 bytes',
    text: JSON.stringify({
      jobs: Array(1_000).fill({ queue: 'emails', name: 'welcome', data: { to: 'ann@example.com' } }),
    }),
    shape: batch,
  },
  {
    name: 'batch of 500 × 1 KB',
    text: JSON.stringify({ jobs: Array(500).fill({ queue: 'emails', name: 'welcome', data: order(10) }) }),
    shape: batch,
  },
  whole('number', '1'),
  whole('empty object', '{}'),
  whole('string of 8 bytes', '"abcdefgh"'),
  ...[64, 256, KIB, 10 * KIB, 200 * KIB].map((bytes) =>
    whole(`string of ${bytes} bytes`, `"${fill('lorem ipsum ', bytes)}"`),
  ),
  whole('string, quotes escaped', `"${fill('\\"id\\":7,', 50 * KIB)}"`),
  whole('string, new lines', `"${fill('a line of text that is not long\\n', 50 * KIB)}"`),
  whole('string, escapes only', `"${fill('\\n', 50 * KIB)}"`),
  whole('string, unicode escapes', `"${fill('\\u4e2d', 50 * KIB)}"`),
  whole('string, Latin', `"${fill('café ', 50 * KIB)}"`),
  whole('string, Chinese', `"${fill('中文字符', 50 * KIB)}"`),
  whole('string, emoji', `"${fill('🙂 ok ', 50 * KIB)}"`),
  whole('strings of 5 bytes', listOf('"abcde"', 50 * KIB)),
  whole('strings of 30 bytes', listOf(`"${'x'.repeat(30)}"`, 50 * KIB)),
  whole('strings of 50 bytes', listOf(`"${'x'.repeat(50)}"`, 50 * KIB)),
  whole('strings of 100 bytes', listOf(`"${'x'.repeat(100)}"`, 50 * KIB)),
  whole('digits', listOf('1', 50 * KIB)),
  whole(
    'integers',
    numbers(8_000, (i) => i * 7919),
  ),
  whole(
    'fractions',
    numbers(4_000, (i) => Math.sin(i)),
  ),
  whole('exponents', listOf('1.5e-7', 50 * KIB)),
  whole('one number of 50 KB', fill('7', 50 * KIB)),
  whole('literals', listOf('true,false,null', 50 * KIB)),
  whole('empty objects', listOf('{}', 50 * KIB)),
  whole('empty arrays', listOf('[]', 50 * KIB)),
  whole('objects of one member', listOf('{"a":1}', 50 * KIB)),
  whole('short keys', `{${Array.from({ length: 5_000 }, (_, i) => `"${i.toString(36)}":0`).join()}}`),
  whole('one short key, repeated', `{${listOf('"a":0', 50 * KIB).slice(1, -1)}}`),
  whole('long keys', `{${Array.from({ length: 500 }, (_, i) => `"${'k'.repeat(90)}${i}":0`).join()}}`),
  whole('keys of 9 bytes', `{${listOf('"createdAt":0', 50 * KIB).slice(1, -1)}}`),
  whole('keys with escapes', `{${listOf('"\\u0061bc":0', 50 * KIB).slice(1, -1)}}`),
  whole('arrays 60 deep', listOf('['.repeat(60) + ']'.repeat(60), 50 * KIB)),
  whole('objects 60 deep', listOf(`${'{"a":'.repeat(60)}0${'}'.repeat(60)}`, 50 * KIB)),
  whole('pretty-printed', JSON.stringify(order(400), undefined, 2)),
  whole('spaces', `[${fill(' ', 50 * KIB)}1]`),
  whole('white space of all kinds', `[${fill(' \n\t\r\n  ', 50 * KIB)}1]`),
  whole('a space around each token', `[${fill('1 , ', 50 * KIB)}1]`),
]

function cpuUs(run: () => void, rounds: number): number {
  const before = cpuUsage()
  for (let i = 0; i < rounds; i++) run()
  const { user, system } = cpuUsage(before)
  return (user + system) / rounds
}

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!

const wanted = argv[2] ?? ''
const rawScanner = createJsonScanner({ maxDepth: 65 })
let sum = 0
for (const { name, text, shape } of inputs.filter((input) => input.name.includes(wanted))) {
  const body = Buffer.from(text)
  const raw = rawScanner.scan(body, rawValue) as RawJson
  const runs = {
    parse: () => JSON.parse(body.toString()),
    scan: () => scanner.scan(body, shape),
    canonical: () => texts.canonical(raw),
  }
  const rounds = Math.max(10, Math.min(30_000, Math.round(2_000_000 / body.length)))
  const times: Record<keyof typeof runs, number[]> = { parse: [], scan: [], canonical: [] }
  for (let i = 0; i < 11; i++) {
    for (const kind of ['parse', 'scan', 'canonical'] as const) {
      const run = runs[kind]
      times[kind].push(cpuUs(() => (sum += run() === null ? 1 : 0), rounds))
    }
  }
  const parseUs = median(times.parse)
  const column = (us: number) => `${us.toFixed(2).padStart(8)} µs ${(us / parseUs).toFixed(2)} ×`
  const columns = `scan ${column(median(times.scan))}  canonical ${column(median(times.canonical))}`
  stdout.write(
    `${name.padEnd(30)} ${String(body.length).padStart(7)} B  parse ${parseUs.toFixed(2).padStart(8)} µs  ${columns}\n`,
  )
}
if (sum < 0) stdout.write(`${sum}\n`)
