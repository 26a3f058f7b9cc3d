/**
 * One validating scan of a body. It returns what JSON.parse would, except that the values which a shape names stay text: a RawJson
 * in their place says where in the body they are. No object is built for them, and no JSON text can forge one.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { SluiceError } from '../errors.ts'
import type { ArrayShape, BodyShape, MembersShape } from './body-shape.ts'
import { endOfName, endOfValue, isName } from './json-grammar.ts'
import { pointerTo } from './json-pointer.ts'
import { skipSpace } from './json-tokens.ts'
import { createTexts, parseRange, parseString, type Texts } from './parse-range.ts'
import { beginScan, createScan, endScan, type Scan, syntaxError } from './scan.ts'

const COMMA = 0x2c
const ARRAY = 0x5b
const ARRAY_END = 0x5d
const OBJECT = 0x7b
const OBJECT_END = 0x7d

export interface JsonScanner {
  /**
   * The value of the body. A RawJson is in the place of each value that stays text, and a SluiceError (JSON_TOO_DEEP,
   * FORBIDDEN_KEY or PAYLOAD_TOO_LARGE, with a pointer into the item) in the place of each independent item that is refused.
   * Without a shape all of it is parsed. Throws EMPTY_BODY, INVALID_JSON, JSON_TOO_DEEP or FORBIDDEN_KEY. A leading byte order
   * mark is ignored.
   */
  scan(body: Buffer, shape?: BodyShape): unknown
}

/** A value that stays text: the bytes from `start` to `end` of `body`. */
export interface RawJson {
  body: Buffer
  start: number
  end: number
  /** How many of the bytes are white space between tokens. */
  spaces: number
}

export interface JsonScannerSettings {
  /** Levels that a body, or an independent item, may be nested. A value that stays text may have one less, wherever it is. */
  maxDepth: number
  /** True: values that stay text are stored data, in which no key is forbidden. */
  allowsAnyKey?: boolean
}

export function createJsonScanner({ maxDepth, allowsAnyKey = false }: JsonScannerSettings): JsonScanner {
  const walk: Walk = { scan: createScan(), maxDepth, allowsAnyKey, texts: createTexts(), end: 0 }
  return {
    scan(body, shape) {
      if (body.length === 0) throw new SluiceError('EMPTY_BODY')
      const isPlain = isAscii(body)
      if (!isPlain && !isUtf8(body))
        throw new SluiceError('INVALID_JSON', {
          detail: 'The body is not valid UTF-8. Send one JSON value in UTF-8.',
        })
      const { scan } = walk
      beginScan(scan, body)
      walk.texts.isAscii = isPlain
      try {
        const value = walkValue(walk, skipSpace(scan, isPlain ? 0 : endOfByteOrderMark(body)), shape, 0)
        const at = skipSpace(scan, walk.end)
        if (at < body.length) throw syntaxError(scan, at, 'end')
        return value
      } finally {
        endScan(scan)
      }
    },
  }
}

/** A view of the bytes of a value that stays text. */
export function rawBytes({ body, start, end }: RawJson): Buffer {
  return body.subarray(start, end)
}

interface Walk {
  scan: Scan
  maxDepth: number
  allowsAnyKey: boolean
  texts: Texts
  /** The offset behind the value that was read last. */
  end: number
}

function endOfByteOrderMark(body: Buffer): number {
  return body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf ? 3 : 0
}

/** Reads the value at `from`. `depth`: how many containers are around it, in the body or in the item. */
function walkValue(walk: Walk, from: number, shape: BodyShape | undefined, depth: number): unknown {
  const { scan, maxDepth } = walk
  if (shape?.kind === 'raw') {
    scan.spaces = 0
    scan.isStored = walk.allowsAnyKey
    const end = endOfValue(scan, from, maxDepth - 1)
    scan.isStored = false
    walk.end = end
    return { body: scan.bytes, start: from, end, spaces: scan.spaces } satisfies RawJson
  }
  if (shape !== undefined && depth < maxDepth && from < scan.length) {
    const first = scan.bytes[from]
    if (shape.kind === 'members') {
      if (first === OBJECT) return walkMembers(walk, from, shape, depth + 1)
    } else if (first === ARRAY) return walkArray(walk, from, shape, depth + 1)
  }
  // Too deep, or of another kind than the shape says, which is for the schema to refuse.
  const end = endOfValue(scan, from, maxDepth - depth)
  walk.end = end
  return scan.fault === undefined ? parseRange(walk.texts, scan.bytes, from, end) : undefined
}

function walkMembers(walk: Walk, from: number, shape: MembersShape, depth: number): unknown {
  const { scan } = walk
  const { bytes, length } = scan
  const members: Record<string, unknown> = {}
  let at = skipSpace(scan, from + 1)
  if (at < length && bytes[at] === OBJECT_END) {
    walk.end = at + 1
    return members
  }
  for (;;) {
    const valueAt = endOfName(scan, at, false)
    const known = indexOfName(scan, at + 1, shape.nameBytes)
    const name = known < 0 ? parseString(walk.texts, bytes, at, scan.nameEnd + 1) : shape.names[known]!
    const value = walkValue(walk, valueAt, known < 0 ? undefined : shape.shapes[known], depth)
    // After a forbidden key, the object is thrown away with its item.
    members[name] = value
    at = skipSpace(scan, walk.end)
    const next = at < length ? bytes[at] : 0
    if (next === OBJECT_END) break
    if (next !== COMMA) throw syntaxError(scan, at, 'member end')
    at = skipSpace(scan, at + 1)
  }
  walk.end = at + 1
  return members
}

function indexOfName(scan: Scan, from: number, names: readonly Buffer[]): number {
  for (let i = 0; i < names.length; i++) if (isName(scan, from, names[i]!)) return i
  return -1
}

function walkArray(walk: Walk, from: number, shape: ArrayShape, depth: number): unknown[] {
  const { scan } = walk
  const { bytes, length } = scan
  const items: unknown[] = []
  let at = skipSpace(scan, from + 1)
  if (at < length && bytes[at] === ARRAY_END) {
    walk.end = at + 1
    return items
  }
  const isIndependent = shape.kind === 'items' && !scan.isTolerant
  for (;;) {
    items.push(isIndependent ? walkItem(walk, at, shape) : walkValue(walk, at, shape.item, depth))
    at = skipSpace(scan, walk.end)
    const next = at < length ? bytes[at] : 0
    if (next === ARRAY_END) break
    if (next !== COMMA) throw syntaxError(scan, at, 'item end')
    at = skipSpace(scan, at + 1)
  }
  walk.end = at + 1
  return items
}

/** An independent item, or the error with which it is refused. */
function walkItem(walk: Walk, from: number, { item, maxBytes }: ArrayShape): unknown {
  const { scan } = walk
  scan.isTolerant = true
  const value = walkValue(walk, from, item, 0)
  scan.isTolerant = false
  const { fault } = scan
  scan.fault = undefined
  const size = walk.end - from
  if (size > maxBytes)
    return new SluiceError('PAYLOAD_TOO_LARGE', {
      detail: `The item is ${size} bytes, and the limit is ${maxBytes}. Send less data.`,
    })
  if (fault === undefined) return value
  const pointer = pointerTo(scan.bytes, from, scan.faultAt)
  return new SluiceError(fault, { errors: [{ pointer, detail: faultDetails[fault] }] })
}

const faultDetails = { JSON_TOO_DEEP: 'is nested too deeply', FORBIDDEN_KEY: 'is a forbidden key' }
