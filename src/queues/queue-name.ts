/**
 * Names of queues. Native producers may use any name that BullMQ accepts: not empty and without a colon, which separates
 * the queue from the key in a job id. A queue that is created here gets a plain name.
 */

/** Names of new queues: safe in a URL, a shell and a Redis key without any escapes. */
export const NEW_QUEUE_PATTERN = '^[A-Za-z0-9_.-]{1,100}$'

/**
 * Names that BullMQ accepts. UTF-8, and so Redis, has no half of a surrogate pair. The length bounds what this process keeps
 * by queue. Written so that it means the same with and without the flag `u`.
 */
const NAME = '(?:[^:\\ud800-\\udfff]|[\\ud800-\\udbff][\\udc00-\\udfff]){1,512}'
export const QUEUE_PATTERN = `^${NAME}$`

/** In a path the name may end with a colon: URLs drop the segments `.` and `..`, encoded or not, but not `..:`. */
export const QUEUE_SEGMENT_PATTERN = `^${NAME}:?$`

const newQueuePattern = new RegExp(NEW_QUEUE_PATTERN)
const queuePattern = new RegExp(QUEUE_PATTERN)

export function isQueueName(name: string): boolean {
  return newQueuePattern.test(name) || queuePattern.test(name)
}

/** Whether a queue of this name may be created here. */
export function isNewQueueName(name: string): boolean {
  return newQueuePattern.test(name)
}

/** The name in a segment that matches QUEUE_SEGMENT_PATTERN. */
export function queueOfSegment(segment: string): string {
  return segment.endsWith(':') ? segment.slice(0, -1) : segment
}

/** A name within a sentence: in quotes, with escapes, unless it is plain. A name may contain line breaks and sentences. */
export function quoteName(name: string): string {
  return newQueuePattern.test(name) ? name : JSON.stringify(name)
}
