/**
 * One validating scan of a body: finds the values that stay text, and returns a small text with a placeholder for each, so
 * that JSON.parse builds objects for the rest only. A placeholder is the value's index in document order. All values at such a
 * place are replaced, so a number there is always a placeholder and never the client's; and JSON.parse decides among duplicates.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { SluiceError } from '../errors.ts'
import type { ArrayShape, BodyShape, MembersShape } from './body-shape.ts'
import { pointerTo } from './json-pointer.ts'
import { smallText } from './small-text.ts'
import {
  ARRAY,
  ARRAY_END,
  beginScan,
  COMMA,
  createScan,
  endOfName,
  endOfValue,
  endScan,
  isName,
  OBJECT,
  OBJECT_END,
  type Scan,
  type ScanFault,
  skipSpace,
  syntaxError,
} from './json-grammar.ts'

export interface JsonScanner {
  /**
   * Throws EMPTY_BODY, INVALID_JSON, JSON_TOO_DEEP or FORBIDDEN_KEY. A leading byte order mark is ignored.
   * `shape`: where values stay text.
   */
  scan(body: Buffer, shape: BodyShape): ScannedBody
}

export interface ScannedBody {
  /** Valid JSON without forbidden keys; a placeholder where a value stays text, and where an item is refused. */
  text: string
  /** For each placeholder three numbers: the start and the end of its value in the body, and how many bytes in it are white space. */
  ranges: number[]
  /** The refused items of the array of items, in order. */
  refused: RefusedItem[]
}

export interface RefusedItem {
  /** Position in the array of items. */
  index: number
  code: ScanFault | 'PAYLOAD_TOO_LARGE'
  /** A JSON Pointer into the item, to the value that is too deep or to the forbidden key. */
  pointer: string
}

export interface JsonScannerSettings {
  /** Levels of a body, or of an item, that may be nested; a value that stays text may have one less, wherever it is. */
  maxDepth: number
}

export function createJsonScanner({ maxDepth }: JsonScannerSettings): JsonScanner {
  const walk: Walk = { scan: createScan(), maxDepth, ranges: [], refused: [] }
  const scratch = { bytes: Buffer.alloc(0) }
  return {
    scan(body, shape) {
      if (body.length === 0) throw new SluiceError('EMPTY_BODY')
      const ascii = isAscii(body)
      if (!ascii && !isUtf8(body))
        throw new SluiceError('INVALID_JSON', {
          detail: 'The body is not valid UTF-8. Send one JSON value in UTF-8.',
        })
      const { scan } = walk
      beginScan(scan, body)
      walk.ranges = []
      walk.refused = []
      try {
        const start = hasByteOrderMark(body) ? 3 : 0
        const at = skipSpace(scan, walkValue(walk, skipSpace(scan, start), shape, 0))
        if (at < body.length) throw syntaxError(scan, at, 'end')
        const { ranges, refused } = walk
        return { text: smallText(body, start, ranges, ascii ? 'latin1' : 'utf8', scratch), ranges, refused }
      } finally {
        endScan(scan)
      }
    },
  }
}

/** The text of a value that stays text, as it was sent: a view of the body. */
export function rawBytes(body: Buffer, { ranges }: ScannedBody, placeholder: number): Buffer {
  return body.subarray(ranges[placeholder * 3]!, ranges[placeholder * 3 + 1]!)
}

interface Walk {
  scan: Scan
  maxDepth: number
  ranges: number[]
  refused: RefusedItem[]
}

function hasByteOrderMark(body: Buffer): boolean {
  return body[0] === 0xef && body.length > 3 && body[1] === 0xbb && body[2] === 0xbf
}

/** The offset behind the value at `from`. `depth`: how many containers are around it, in the body or in the item. */
function walkValue(walk: Walk, from: number, shape: BodyShape, depth: number): number {
  const { scan, maxDepth } = walk
  if (shape.kind === 'raw') {
    scan.spaces = 0
    const end = endOfValue(scan, from, maxDepth - 1)
    walk.ranges.push(from, end, scan.spaces)
    return end
  }
  if (shape.kind === 'items') walk.refused = []
  const first = from < scan.length ? scan.bytes[from] : 0
  if (depth < maxDepth) {
    if (shape.kind === 'members') {
      if (first === OBJECT) return walkMembers(walk, from, shape, depth + 1)
    } else if (first === ARRAY) return walkArray(walk, from, shape, depth + 1)
  }
  // Too deep, or of another kind than the shape says, which is for the schema to refuse.
  return endOfValue(scan, from, maxDepth - depth)
}

function walkMembers(walk: Walk, from: number, shape: MembersShape, depth: number): number {
  const { scan, maxDepth } = walk
  const { bytes, length } = scan
  let at = skipSpace(scan, from + 1)
  if (at < length && bytes[at] === OBJECT_END) return at + 1
  for (;;) {
    const name = at + 1
    const value = endOfName(scan, at, false)
    const inner = shapeOf(scan, name, shape)
    at = inner ? walkValue(walk, value, inner, depth) : endOfValue(scan, value, maxDepth - depth)
    at = skipSpace(scan, at)
    const next = at < length ? bytes[at] : 0
    if (next === OBJECT_END) return at + 1
    if (next !== COMMA) throw syntaxError(scan, at, 'member end')
    at = skipSpace(scan, at + 1)
  }
}

function shapeOf(scan: Scan, name: number, { names, shapes }: MembersShape): BodyShape | undefined {
  for (let i = 0; i < names.length; i++) if (isName(scan, name, names[i]!)) return shapes[i]
  return undefined
}

function walkArray(walk: Walk, from: number, shape: ArrayShape, depth: number): number {
  const { scan } = walk
  const { bytes, length } = scan
  let at = skipSpace(scan, from + 1)
  if (at < length && bytes[at] === ARRAY_END) return at + 1
  for (let index = 0; ; index++) {
    at =
      shape.kind === 'items' && !scan.isTolerant
        ? walkItem(walk, at, shape, index)
        : walkValue(walk, at, shape.item, depth)
    at = skipSpace(scan, at)
    const next = at < length ? bytes[at] : 0
    if (next === ARRAY_END) return at + 1
    if (next !== COMMA) throw syntaxError(scan, at, 'item end')
    at = skipSpace(scan, at + 1)
  }
}

/** An item that is refused becomes one placeholder as a whole. */
function walkItem(walk: Walk, from: number, { item, maxBytes }: ArrayShape, index: number): number {
  const { scan, ranges } = walk
  const before = ranges.length
  scan.isTolerant = true
  scan.fault = undefined
  const end = walkValue(walk, from, item, 0)
  scan.isTolerant = false
  const isTooLarge = end - from > maxBytes
  if (!isTooLarge && scan.fault === undefined) return end
  ranges.length = before
  ranges.push(from, end, 0)
  walk.refused.push(
    isTooLarge
      ? { index, code: 'PAYLOAD_TOO_LARGE', pointer: '' }
      : { index, code: scan.fault!, pointer: pointerTo(scan.bytes, from, scan.faultAt) },
  )
  return end
}
