/** The state of the scan of one text, and how a scan reports faults. A scanner reuses the state: a small body allocates next to nothing. */
import { SluiceError } from '../errors.ts'
import { describeSyntax, type SyntaxFault } from './json-faults.ts'

export interface Scan {
  bytes: Buffer
  length: number
  /** For each open container, the kind of the one around it. */
  stack: Uint8Array
  /** Reads words of the bytes; `undefined` for a small text until it has a long run. */
  view: DataView | undefined
  /** Has a copy of a small text, which is faster than a new view. */
  smallBytes: Uint8Array
  smallView: DataView
  /** White space between tokens, in bytes. */
  spaces: number
  /** The last offset of an escape in a string. */
  escapeAt: number
  /** The offset behind the last member name that was read, without its quote. */
  nameEnd: number
  /** The start of the value of the last member named `constructor`. */
  constructorAt: number
  /** True: the first fault is kept in `fault`, and the scan goes on. False: a fault throws. */
  isTolerant: boolean
  /** True: the text is stored data. No key is forbidden, and a fault is not explained. */
  isStored: boolean
  fault: ScanFault | undefined
  faultAt: number
}

export type ScanFault = 'JSON_TOO_DEEP' | 'FORBIDDEN_KEY'

const noBytes = Buffer.alloc(0)
const STACK_LEVELS = 1_024
const SMALL_BYTES = 2_048

export function createScan(): Scan {
  const smallBytes = new Uint8Array(SMALL_BYTES)
  return {
    bytes: noBytes,
    length: 0,
    stack: new Uint8Array(STACK_LEVELS),
    view: undefined,
    smallBytes,
    smallView: new DataView(smallBytes.buffer),
    spaces: 0,
    escapeAt: -1,
    nameEnd: -1,
    constructorAt: -1,
    isTolerant: false,
    isStored: false,
    fault: undefined,
    faultAt: -1,
  }
}

export function beginScan(scan: Scan, bytes: Buffer): void {
  scan.bytes = bytes
  scan.length = bytes.length
  scan.spaces = 0
  scan.escapeAt = -1
  scan.nameEnd = -1
  scan.constructorAt = -1
  scan.isTolerant = false
  scan.isStored = false
  scan.fault = undefined
  if (bytes.length > SMALL_BYTES) scan.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** Lets go of the text, and of a stack that had to grow. */
export function endScan(scan: Scan): void {
  scan.bytes = noBytes
  scan.view = undefined
  if (scan.stack.length > STACK_LEVELS) scan.stack = new Uint8Array(STACK_LEVELS)
}

/** For a small text, a copy is faster than a new view. */
export function viewOf(scan: Scan): DataView {
  if (scan.view) return scan.view
  scan.smallBytes.set(scan.bytes)
  scan.view = scan.smallView
  return scan.view
}

/** Reports a fault other than one of the grammar. */
export function refuse(scan: Scan, fault: ScanFault, at: number): void {
  if (scan.isStored) {
    if (fault === 'FORBIDDEN_KEY') return
    throw notJson
  }
  if (!scan.isTolerant) throw new SluiceError(fault)
  if (scan.fault !== undefined) return
  scan.fault = fault
  scan.faultAt = at
}

/** Made once, because other producers may store many texts that are not JSON. */
const notJson = new SluiceError('INVALID_JSON')

export function syntaxError(scan: Scan, at: number, fault: SyntaxFault): SluiceError {
  if (scan.isStored) return notJson
  const detail = describeSyntax(scan.bytes, at, fault)
  return new SluiceError('INVALID_JSON', { detail: `${detail}. Send one JSON value in UTF-8.` })
}
