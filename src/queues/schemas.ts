/** The contract of the event streams. */
import { Type } from 'typebox'
import { QUEUE_PATTERN } from './queue-registry.ts'

export const QueueParams = Type.Object({
  queue: Type.String({
    pattern: QUEUE_PATTERN,
    description: 'Queue name: 1 to 100 of A-Z a-z 0-9 _ . -',
    examples: ['emails'],
  }),
})

/** For the documentation: headers are read, not validated. */
export const EventHeaders = Type.Object({
  'last-event-id': Type.Optional(
    Type.String({ description: 'Id of the last event that was seen; EventSource sends it by itself.' }),
  ),
})

export const eventStreamResponses = {
  200: {
    description:
      "Server-sent events. `id` is that of the entry in the queue's Redis stream, `data` one JSON object. " +
      '`state`: {id, queue, at, state, previous} and result, error.message or delayedUntil, where it has one; a prioritized job is announced as waiting. ' +
      '`progress`: {id, queue, at, progress}. `removed`, `added`, `stalled`, `deduplicated`, `retries-exhausted`, … as BullMQ has them. ' +
      '`gap`: {reason}, and a snapshot follows. A comment every 15 s keeps the connection.',
    content: { 'text/event-stream': { schema: { type: 'string' } } },
  },
  204: {
    description: 'There is nothing to come: the client has seen the end. EventSource then stops.',
    type: 'null',
  },
} as const
