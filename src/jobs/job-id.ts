/**
 * Job ids: `<queue>:<key>`, split at the first colon. Neither half may hold what BullMQ or Redis would take for
 * something else: a job called `completed` would become the very key of the queue's completed set.
 */
import { getRandomValues } from 'node:crypto'
import { QUEUE_PATTERN } from '../queues/queue-registry.ts'

/** Suffixes of BullMQ's own keys (queue-keys.js and its scripts), each of which would be overwritten by such a job. */
export const RESERVED_KEYS = [
  'active', 'completed', 'de', 'delayed', 'dn', 'events', 'failed', 'id', 'limiter', 'marker', 'meta', 'metrics',
  'paused', 'pc', 'priority', 'prioritized', 'relay', 'repeat', 'sluice', 'stalled', 'stalled-check', 'wait',
  'waiting', 'waiting-children',
] // biome-ignore format: a list to read, not a column

/** A client's own key: no colon, no digits alone (BullMQ counts with those), none of the reserved words. */
export const JOB_KEY_PATTERN = `^(?!(?:${RESERVED_KEYS.join('|')})$)(?!\\d+$)[A-Za-z0-9_-][A-Za-z0-9_.~-]{0,127}$`

export interface JobRef {
  queue: string
  /** BullMQ's job id. */
  key: string
}

const queuePattern = new RegExp(QUEUE_PATTERN)

/** A key that others made may hold colons (`repeat:daily:17`), never a control character or a space. */
const foreignKeyPattern = /^[\x21-\x7e]{1,512}$/

export function isQueueName(name: string): boolean {
  return queuePattern.test(name)
}

/**
 * Reads an id as it stands in a URL. `undefined` for what cannot be one, so that it answers as a job that is not there.
 * A key that names one of the queue's own keys is no job either: reading it would fail on its type.
 */
export function parseJobId(id: string, defaultQueue: string): JobRef | undefined {
  const colon = id.indexOf(':')
  const queue = colon < 0 ? defaultQueue : id.slice(0, colon)
  const key = colon < 0 ? id : id.slice(colon + 1)
  if (!isQueueName(queue) || !foreignKeyPattern.test(key)) return undefined
  return RESERVED_KEYS.includes(key) ? undefined : { queue, key }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
const random = new Uint8Array(8 * 512)
let randomAt = random.length
let lastMs = 0
let sequence = 0
let timeText = ''

/**
 * UUIDv7 (RFC 9562 §5.7): 48 bits of time, then a 12-bit counter within the millisecond (method 1 of §6.2, so that ids
 * made here sort in the order they were made), then 62 random bits.
 */
export function uuidv7(nowMs: number): string {
  if (nowMs > lastMs) startMillisecond(nowMs)
  // More than 4,096 in a millisecond, or a clock that went back: borrow from the next.
  else if (++sequence > 0xfff) startMillisecond(lastMs + 1)
  if (randomAt === random.length) {
    getRandomValues(random)
    randomAt = 0
  }
  const r = random
  const at = randomAt
  randomAt += 8
  const tail =
    HEX[r[at + 2]!]! + HEX[r[at + 3]!] + HEX[r[at + 4]!] + HEX[r[at + 5]!] + HEX[r[at + 6]!] + HEX[r[at + 7]!]
  const variant = HEX[0x80 | (r[at]! & 0x3f)]! + HEX[r[at + 1]!]
  return `${timeText}-7${HEX[sequence >> 8]![1]}${HEX[sequence & 0xff]}-${variant}-${tail}`
}

function startMillisecond(ms: number): void {
  lastMs = ms
  sequence = 0
  const hex = ms.toString(16).padStart(12, '0')
  timeText = `${hex.slice(0, 8)}-${hex.slice(8)}`
}
