/**
 * The scanner costs no more than JSON.parse. Alternating runs in one process, so that other load slows both; the bound is generous, as
 * it is to find a change that makes a kind of text several times slower. `load/json-scanner.ts` measures.
 */
import t from 'tap'
import { type BodyShape, itemsOf, membersOf, rawValue } from '../../src/json/body-shape.ts'
import { createJsonScanner } from '../../src/json/json-scanner.ts'

const BOUND = 2.5
const ROUNDS = 9
const BYTES = 20_000

const { scan } = createJsonScanner({ maxDepth: 64 })
const job = membersOf({ queue: undefined, name: undefined, data: rawValue })
const batch = membersOf({ jobs: itemsOf(job, 1_000_000) })
const fill = (piece: string) => piece.repeat(Math.ceil(BYTES / piece.length))
const newJob = {
  queue: 'emails',
  name: 'welcome',
  data: { to: 'ann@example.com', tags: ['a', 1, true, null] },
}

const inputs: Record<string, [text: string, shape: BodyShape]> = {
  'a job': [JSON.stringify(newJob), job],
  'a batch': [JSON.stringify({ jobs: Array(200).fill(newJob) }), batch],
  'a long string': [`"${fill('lorem ipsum ')}"`, rawValue],
  escapes: [`"${fill('\\"id\\":\\u0037,\\n')}"`, rawValue],
  'short strings': [`[${fill('"abcde",')}""]`, rawValue],
  integers: [`[${fill('12345,')}0]`, rawValue],
  fractions: [`[${fill('0.123456789,')}0]`, rawValue],
  members: [`{${fill('"createdAt":0,')}"a":0}`, rawValue],
  'names with escapes': [`{${fill('"cr\\u0065ated":0,')}"a":0}`, rawValue],
  containers: [`[${fill('[],{},[[{}]],')}0]`, rawValue],
  literals: [`[${fill('true,false,null,')}0]`, rawValue],
  indentation: [JSON.stringify(Array(50).fill(newJob), undefined, 4), rawValue],
  'white space': [`[${fill(' \n\t\r')}0]`, rawValue],
}

function elapsedNs(run: () => unknown, times: number): number {
  const start = process.hrtime.bigint()
  for (let i = 0; i < times; i++) run()
  return Number(process.hrtime.bigint() - start)
}

for (const [name, [text, shape]] of Object.entries(inputs)) {
  t.test(`${name}: at most ${BOUND} times the time of JSON.parse`, async (t) => {
    const body = Buffer.from(text)
    const times = Math.ceil(200_000 / body.length)
    const least = { parse: Number.POSITIVE_INFINITY, scan: Number.POSITIVE_INFINITY }
    for (let i = 0; i < ROUNDS; i++) {
      least.parse = Math.min(
        least.parse,
        elapsedNs(() => JSON.parse(body.toString()), times),
      )
      least.scan = Math.min(
        least.scan,
        elapsedNs(() => scan(body, shape), times),
      )
    }
    const ratio = least.scan / least.parse
    t.ok(ratio < BOUND, `${ratio.toFixed(2)} times`)
  })
}
