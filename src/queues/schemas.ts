/** How requests name a queue, and the responses of the event streams, of a queue or of one job. */
import { type Static, type TSchema, Type } from 'typebox'
import { QUEUE_PATTERN, QUEUE_SEGMENT_PATTERN, queueOfSegment } from './queue-name.ts'

const ANY_NAME = 'Queue name: any that BullMQ accepts, 1 to 512 characters without a colon'

/** A queue that is named in a query or in a body. */
export const QueueName = Type.String({
  pattern: QUEUE_PATTERN,
  description: `${ANY_NAME}.`,
  examples: ['emails'],
})

/** A queue that is named in the path. */
export const QueueParams = Type.Object({
  queue: Type.String({
    pattern: QUEUE_SEGMENT_PATTERN,
    description:
      `${ANY_NAME}. Percent-encode it as one segment (encodeURIComponent). A name that is only dots needs a colon at its end ` +
      '(`..:`), since URLs drop such segments.',
    examples: ['emails'],
  }),
})

/** Values by queue. Type.Record leaves out names with a line break, which its pattern does not match. */
export const byQueue = <T extends TSchema>(schema: T, description: string) =>
  Type.Unsafe<Record<string, Static<T>>>({ type: 'object', additionalProperties: schema, description })

/** The queue that the path of a request names. */
export function queueIn({ queue }: Static<typeof QueueParams>): string {
  return queueOfSegment(queue)
}

/** For the OpenAPI document; headers are not validated. */
export const EventHeaders = Type.Object({
  'last-event-id': Type.Optional(
    Type.String({
      description: 'Id of the last event that the client received. EventSource sends it automatically.',
    }),
  ),
})

export const eventStreamResponses = {
  200: {
    description:
      "Server-sent events. `id` is the id of the entry in the queue's Redis stream, `data` one JSON object. " +
      '`state`: {id, queue, at, state, previous}, with result, error.message or delayedUntil where the state has one; a prioritized ' +
      'job is reported as waiting. `progress`: {id, queue, at, progress}. `removed`, `added`, `stalled`, `deduplicated`, ' +
      '`retries-exhausted` and others as in BullMQ. `gap`: {reason}, followed by a snapshot. A comment every 15 s keeps the ' +
      'connection open.',
    content: { 'text/event-stream': { schema: { type: 'string' } } },
  },
  204: {
    description: 'The client has received the last event of the job. EventSource stops reconnecting.',
    type: 'null',
  },
} as const
