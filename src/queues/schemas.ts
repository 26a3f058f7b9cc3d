/** Parameters and responses of the event streams, of a queue or of one job. */
import { Type } from 'typebox'
import { QUEUE_PATTERN } from './queue-registry.ts'

export const QueueParams = Type.Object({
  queue: Type.String({
    pattern: QUEUE_PATTERN,
    description: 'Queue name: 1 to 100 characters of A-Z a-z 0-9 _ . -',
    examples: ['emails'],
  }),
})

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
