/** `GET /queues/:queue/events`: the events of a queue, as server-sent events. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { assertQueueAccess } from '../auth/access.ts'
import { GUARD_PROBLEMS, problemResponses, REDIS_PROBLEMS } from '../errors.ts'
import type { EventFollower } from '../events/event-follower.ts'
import type { QueueRegistry } from './queue-registry.ts'
import { EventHeaders, eventStreamResponses, QueueParams, queueIn } from './schemas.ts'

export interface QueueRoutes {
  registry: QueueRegistry
  follower: EventFollower
}

export async function queueRoutes(instance: FastifyInstance, deps: QueueRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { registry, follower } = deps

  app.get('/queues/:queue/events', {
    config: { scope: 'read' },
    exposeHeadRoute: false,
    schema: {
      operationId: 'followQueue',
      summary: 'Follow the events of a queue',
      description:
        'Sends `snapshot` ({queue, counts}), then every event of the queue as a server-sent event; the counts may include the ' +
        'first events already. A client that reconnects with Last-Event-ID receives the events that it missed, or `gap` and a ' +
        'new snapshot when they are no longer available.',
      tags: ['queues'],
      params: QueueParams,
      headers: EventHeaders,
      response: {
        ...eventStreamResponses,
        ...problemResponses([
          'INVALID_NAME',
          'QUEUE_NOT_FOUND',
          'TOO_MANY_WAITS',
          ...GUARD_PROBLEMS,
          ...REDIS_PROBLEMS,
        ]),
      },
    },
    handler: async (request, reply) => {
      const queue = queueIn(request.params)
      assertQueueAccess(request.access, queue)
      const wait = reply.beginWait({ queue })
      await follower.follow({
        queue,
        lastEventId: request.headers['last-event-id'],
        snapshot: async (position) => {
          const counts = await registry.counts(queue)
          return { data: JSON.stringify({ queue, counts }), position, isOver: false }
        },
        open: () => reply.openEventStream(wait),
      })
    },
  })
}
