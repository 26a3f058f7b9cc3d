/**
 * Job ids: `<queue>:<key>`, split at the first colon. A key must not collide with BullMQ's own keys: the hash of a job
 * called `completed` would overwrite the queue's completed set.
 */
import { getRandomValues } from 'node:crypto'
import { QUEUE_PATTERN } from '../queues/queue-registry.ts'

/** Suffixes of a queue's own keys (BullMQ's queue-keys.js and its scripts). No job may have one as its key. */
export const RESERVED_KEYS = [
  'active', 'completed', 'de', 'delayed', 'dn', 'events', 'failed', 'id', 'limiter', 'marker', 'meta', 'metrics',
  'paused', 'pc', 'priority', 'prioritized', 'relay', 'repeat', 'sluice', 'stalled', 'stalled-check', 'wait',
  'waiting', 'waiting-children',
] // biome-ignore format: a list to read, not a column

/** A key chosen by a client: no colon, no reserved word, and not digits alone, which are BullMQ's generated ids. */
export const JOB_KEY_PATTERN = `^(?!(?:${RESERVED_KEYS.join('|')})$)(?!\\d+$)[A-Za-z0-9_-][A-Za-z0-9_.~-]{0,127}$`

export interface JobRef {
  queue: string
  /** BullMQ's job id. */
  key: string
}

const queuePattern = new RegExp(QUEUE_PATTERN)

/** Other producers may use colons (`repeat:daily:17`); control characters and spaces are never part of a key. */
const anyKeyPattern = /^[\x21-\x7e]{1,512}$/

export function isQueueName(name: string): boolean {
  return queuePattern.test(name)
}

/**
 * Parses the id in a URL; a key alone belongs to `defaultQueue`. `undefined` for text that cannot be an id, which every
 * route reports as not found. This includes reserved words: reading such a key as a job would fail on its type.
 */
export function parseJobId(id: string, defaultQueue: string): JobRef | undefined {
  const colon = id.indexOf(':')
  const queue = colon < 0 ? defaultQueue : id.slice(0, colon)
  const key = colon < 0 ? id : id.slice(colon + 1)
  if (!isQueueName(queue) || !anyKeyPattern.test(key)) return undefined
  return RESERVED_KEYS.includes(key) ? undefined : { queue, key }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
/** Random bytes are fetched for this many ids at a time. */
const RANDOM_IDS = 512

/**
 * Creates a generator of UUIDv7 (RFC 9562 §5.7): 48 bits of time, a 12-bit counter within the millisecond (method 1 of
 * §6.2, so that the ids of one generator sort in the order in which it made them), and 62 random bits.
 */
export function createUuidv7(): (nowMs: number) => string {
  const random = new Uint8Array(8 * RANDOM_IDS)
  let randomAt = random.length
  let lastMs = 0
  let sequence = 0
  let timeText = ''

  function startMillisecond(ms: number): void {
    lastMs = ms
    sequence = 0
    const hex = ms.toString(16).padStart(12, '0')
    timeText = `${hex.slice(0, 8)}-${hex.slice(8)}`
  }

  return function uuidv7(nowMs) {
    if (nowMs > lastMs) startMillisecond(nowMs)
    // After 4,096 ids in a millisecond, or when the clock goes back, borrow from the next millisecond.
    else if (++sequence > 0xfff) startMillisecond(lastMs + 1)
    if (randomAt === random.length) {
      getRandomValues(random)
      randomAt = 0
    }
    const r = random
    const at = randomAt
    randomAt += 8
    const tail =
      HEX[r[at + 2]!]! +
      HEX[r[at + 3]!] +
      HEX[r[at + 4]!] +
      HEX[r[at + 5]!] +
      HEX[r[at + 6]!] +
      HEX[r[at + 7]!]
    const variant = HEX[0x80 | (r[at]! & 0x3f)]! + HEX[r[at + 1]!]
    return `${timeText}-7${HEX[sequence >> 8]![1]}${HEX[sequence & 0xff]}-${variant}-${tail}`
  }
}
