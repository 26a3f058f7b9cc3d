/**
 * The scanner against JSON.parse, on generated texts: JSON_RUNS for more of them (2,000), JSON_SEED for others.
 */
import { isUtf8 } from 'node:buffer'
import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import t from 'tap'
import { SluiceError } from '../../src/errors.ts'
import { type BodyShape, itemsOf, membersOf, rawValue, treeOf } from '../../src/json/body-shape.ts'
import { createJsonTexts } from '../../src/json/canonical-text.ts'
import { createJsonScanner, type RawJson, rawBytes } from '../../src/json/json-scanner.ts'
import { parseJson } from './reference-parser.ts'
import { mutatedBytes, spacedText, validText } from './spellings.ts'

const numRuns = Number(process.env['JSON_RUNS'] ?? 2_000)
const seed = Number(process.env['JSON_SEED'] ?? 20_261_128)
// Only then: the file shares its process, and its time limit, with others.
if (numRuns > 2_000) t.setTimeout(300_000 + numRuns)

const scanner = createJsonScanner({ maxDepth: 64 })
/** For bodies that are raw as a whole: a raw value may have one level less than a body. */
const rawScanner = createJsonScanner({ maxDepth: 65 })
const texts = createJsonTexts()
const parsed = membersOf({})
const job = membersOf({ queue: undefined, data: rawValue })
const tree = treeOf({ data: rawValue }, 'children')

const padding = Buffer.alloc(2_100, ' ')

function codeOf(run: () => unknown): string {
  try {
    run()
    return 'accepted'
  } catch (error) {
    if (error instanceof SluiceError) return error.code
    throw error
  }
}

const isRaw = (value: object): value is RawJson => 'body' in value && Buffer.isBuffer(value.body)

/** The value with its raw values parsed. */
function restore(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (isRaw(value)) return JSON.parse(rawBytes(value).toString())
  for (const [name, inner] of Object.entries(value)) (value as Record<string, unknown>)[name] = restore(inner)
  return value
}

const isSame = (a: unknown, b: unknown) => isDeepStrictEqual(a, b) && JSON.stringify(a) === JSON.stringify(b)

/** A forbidden key under a name that appears again is refused here, and was not by JSON.parse first. */
const mayShadow = (text: string) => /"(\\u00..|[_\w])+"\s*:/.test(text)

function holdsLikeJsonParse(bytes: Buffer, shape: BodyShape): boolean {
  const text = bytes.toString()
  const { scan } = shape === rawValue ? rawScanner : scanner
  const verdict = codeOf(() => scan(bytes, shape))
  // Large bodies are read by words from the start.
  const padded = Buffer.concat([bytes, padding])
  if (bytes.length > 0 && codeOf(() => scan(padded, shape)) !== verdict) return false
  let expected: unknown
  try {
    if (!isUtf8(bytes)) throw new Error('not UTF-8')
    expected = JSON.parse(text.replace(/^\ufeff/, ''))
  } catch {
    // Depth or a key may be found before the fault.
    if (bytes.length === 0) return verdict === 'EMPTY_BODY'
    return verdict !== 'accepted' && verdict !== 'EMPTY_BODY'
  }
  const before = codeOf(() => parseJson(text))
  if (verdict === 'accepted') {
    // Raw values of child nodes may have as many levels as those of a job.
    const isAllowed = before === 'accepted' || (before === 'JSON_TOO_DEEP' && shape === tree)
    return isAllowed && isSame(restore(scan(bytes, shape)), expected)
  }
  if (verdict === before) return true
  const isBoth = before === 'JSON_TOO_DEEP' && verdict === 'FORBIDDEN_KEY'
  return isBoth || (verdict === 'FORBIDDEN_KEY' && before === 'accepted' && mayShadow(text))
}

const holds = (property: fc.IProperty<[Buffer]> | fc.IProperty<[string]>) =>
  fc.assert(property as fc.IProperty<[unknown]>, { numRuns, seed })

t.test('valid texts are accepted and parsed as by JSON.parse, whatever stays text', async () => {
  holds(
    fc.property(spacedText, (text) =>
      [parsed, job, tree].every((shape) => holdsLikeJsonParse(Buffer.from(text), shape)),
    ),
  )
})

t.test('mutated texts are accepted exactly when JSON.parse accepts them', async () => {
  holds(
    fc.property(
      mutatedBytes,
      (bytes) => holdsLikeJsonParse(bytes, job) && holdsLikeJsonParse(bytes, rawValue),
    ),
  )
})

t.test('an item of a batch gets the verdict that it gets alone', async () => {
  const batch = membersOf({ jobs: itemsOf(job, 400) })
  fc.assert(
    fc.property(fc.array(validText, { minLength: 1, maxLength: 6 }), (items) => {
      const body = Buffer.from(`{"jobs": [ ${items.join(' ,\n')} ]}`)
      const { jobs } = scanner.scan(body, batch) as { jobs: unknown[] }
      return items.every((item, i) => {
        const size = Buffer.byteLength(item)
        const verdict = size > 400 ? 'PAYLOAD_TOO_LARGE' : codeOf(() => scanner.scan(Buffer.from(item), job))
        if (jobs[i] instanceof SluiceError) return jobs[i].code === verdict
        return verdict === 'accepted' && isSame(restore(jobs[i]), JSON.parse(item))
      })
    }),
    { numRuns, seed },
  )
})

t.test('a raw value is exactly the bytes of the value, and its white space is counted', async () => {
  holds(
    fc.property(spacedText, (text) => {
      if (codeOf(() => rawScanner.scan(Buffer.from(text), rawValue)) !== 'accepted') return true
      const raw = rawScanner.scan(Buffer.from(text), rawValue) as RawJson
      const sent = rawBytes(raw).toString()
      const compact = texts.compact(raw)
      const dropped = text.replace(/("(?:\\.|[^"\\])*")|[ \n\r\t]+/g, '$1')
      return (
        sent === text.replace(/^[ \n\r\t]+|[ \n\r\t]+$/g, '') &&
        compact.toString() === dropped &&
        raw.spaces === raw.end - raw.start - compact.length
      )
    }),
  )
})
