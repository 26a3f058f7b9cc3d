/**
 * Reads the items of a settle or an extend, each for itself: one that is refused does not affect the others. Results and progress stay
 * the text that was sent.
 */
import type { TSchema } from 'typebox'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import { SluiceError } from '../errors.ts'
import { type BodyShape, itemsOf, membersOf, rawValue } from '../json/body-shape.ts'
import { createJsonTexts, type JsonTexts } from '../json/canonical-text.ts'
import type { RawJson } from '../json/json-scanner.ts'
import { createValidator } from '../validation.ts'
import type { ExtendRequest, SettleRequest } from './lease-settler.ts'
import { ExtendItem, LEASE_MS, SettleItem } from './schemas.ts'
import { truncateText } from './truncate-text.ts'

export interface LeaseItems {
  /** For each item: what to settle, or why it is refused. */
  toSettle(items: unknown[]): (SettleRequest | SluiceError)[]
  toExtend(items: unknown[]): (ExtendRequest | SluiceError)[]
}

/** `itemMaxBytes`: most bytes of an item. */
export function settleBodyShape(itemMaxBytes: number): BodyShape {
  return membersOf({ items: itemsOf(membersOf({ lease: undefined, result: rawValue }), itemMaxBytes) })
}

export function extendBodyShape(itemMaxBytes: number): BodyShape {
  return membersOf({ items: itemsOf(membersOf({ lease: undefined, progress: rawValue }), itemMaxBytes) })
}

export function createLeaseItems(): LeaseItems {
  const texts = createJsonTexts()
  const checkSettle = createItemCheck(SettleItem)
  const checkExtend = createItemCheck(ExtendItem)
  return {
    toSettle: (items) =>
      items.map((item) => {
        const refused = checkSettle(item)
        if (refused) return refused
        const settle = item as SettleItem
        return { lease: settle.lease, outcome: outcomeOf(settle, texts) }
      }),
    toExtend: (items) =>
      items.map((item) => {
        const refused = checkExtend(item)
        if (refused) return refused
        const { lease, leaseMs = LEASE_MS, progress, log } = item as ExtendItem
        return {
          lease,
          extension: {
            leaseMs,
            progress: progress === undefined ? undefined : texts.compact(progress as RawJson),
            log: log === undefined ? undefined : truncateText(log),
          },
        }
      }),
  }
}

/** Returns why an item is refused: the scan of the body or the schema says so. */
function createItemCheck(schema: TSchema): (item: unknown) => SluiceError | undefined {
  const validate = createValidator(schema)
  return (item) => {
    if (item instanceof SluiceError) return item
    const invalid = validate(item)
    return invalid && new SluiceError('INVALID_ITEM', { errors: invalid.errors, outcome: 'not_executed' })
  }
}

const NULL = Buffer.from('null')

function outcomeOf(item: SettleItem, texts: JsonTexts): JobOutcome {
  const { outcome, result, error, unrecoverable = false, delay } = item
  switch (outcome) {
    case 'complete':
      return { outcome, result: result === undefined ? NULL : texts.compact(result as RawJson) }
    case 'fail': {
      const { message = 'failed', stack } = error ?? {}
      return {
        outcome,
        error: {
          message: truncateText(message),
          stack: stack === undefined ? undefined : truncateText(stack),
        },
        unrecoverable,
        retryAfterMs: delay,
      }
    }
    case 'retry':
      return { outcome, delayMs: delay ?? 0 }
    case 'release':
      return { outcome }
  }
}
