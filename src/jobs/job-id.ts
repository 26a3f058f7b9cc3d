/**
 * Job ids: `<queue>:<key>`, split at the first colon, which no queue name contains. The key is BullMQ's job id. One of a
 * native producer may be any text; one that is chosen here must not collide with BullMQ's own keys: the hash of a job called
 * `completed` would overwrite the queue's completed set.
 */
import { getRandomValues } from 'node:crypto'
import { isQueueName } from '../queues/queue-name.ts'

/** Suffixes of a queue's own keys (BullMQ's queue-keys.js): none of them can be read as a job. */
const QUEUE_KEYS = [
  'active', 'completed', 'de', 'delayed', 'events', 'failed', 'id', 'limiter', 'marker', 'meta', 'paused', 'pc',
  'prioritized', 'repeat', 'stalled', 'stalled-check', 'wait', 'waiting-children',
] // biome-ignore format: a list to read, not a column

/** No new job may have one of these keys: the others are names that scripts, other versions or this service use. */
export const RESERVED_KEYS = [
  ...QUEUE_KEYS,
  ...['dn', 'metrics', 'priority', 'relay', 'sluice', 'waiting'],
] // biome-ignore format: a list to read, not a column

/** A key chosen by a client: no colon, no reserved word, and not digits alone, which are BullMQ's generated ids. */
export const JOB_KEY_PATTERN = `^(?!(?:${RESERVED_KEYS.join('|')})$)(?!\\d+$)[A-Za-z0-9_-][A-Za-z0-9_.~-]{0,127}$`

export interface JobRef {
  queue: string
  /** BullMQ's job id. */
  key: string
}

/** In UTF-16 units. If they are ASCII, a URL with all of them percent-encoded fits into a request. */
export const KEY_MAX = 4_096

/** Longest URL of a job: clients and this service take 16 KiB of headers, and there are others. */
const URL_MAX = 14_000

const queueKeys: ReadonlySet<string> = new Set(QUEUE_KEYS)

/**
 * Parses the id in a URL; a key alone belongs to `defaultQueue`. `undefined` for text that cannot be an id, which every
 * route reports as not found. This includes the names of a queue's own keys.
 */
export function parseJobId(id: string, defaultQueue: string): JobRef | undefined {
  const colon = id.indexOf(':')
  const queue = colon < 0 ? defaultQueue : id.slice(0, colon)
  const key = colon < 0 ? id : id.slice(colon + 1)
  if (key === '' || key.length > KEY_MAX || queueKeys.has(key) || !isQueueName(queue)) return undefined
  return { queue, key }
}

/** Nothing in it has to be encoded. */
const PLAIN_ID = /^[\w.~:-]+$/

/**
 * The URL of a job, for `Location`: visible ASCII. Every URL of a job that an answer contains is made here. `undefined`: it
 * would be too long for a request or an answer.
 */
export function jobUrl({ queue, key }: JobRef): string | undefined {
  if (key.length > KEY_MAX) return undefined
  const id = `${queue}:${key}`
  const url = `/jobs/${PLAIN_ID.test(id) ? id : encodeURIComponent(id).replaceAll('%3A', ':')}`
  return url.length > URL_MAX ? undefined : url
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
