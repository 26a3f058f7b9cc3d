/** `GET /queues/:queue/events`: what happens to the jobs of a queue, as it happens. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { assertQueueAccess } from '../auth/access.ts'
import { GUARD_PROBLEMS, problemResponses, REDIS_PROBLEMS } from '../errors.ts'
import type { EventFollower } from '../events/event-follower.ts'
import type { QueueRegistry } from './queue-registry.ts'
import { EventHeaders, eventStreamResponses, QueueParams } from './schemas.ts'

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
      summary: 'Follow a queue by server-sent events',
      description:
        '`snapshot` ({queue, counts}; the first events may be counted in it already), then everything that happens to its jobs. ' +
        'Whoever comes back with Last-Event-ID gets what was missed, or `gap` and a new snapshot where that is not known.',
      tags: ['queues'],
      params: QueueParams,
      headers: EventHeaders,
      response: {
        ...eventStreamResponses,
        ...problemResponses(['INVALID_NAME', 'QUEUE_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { queue } = request.params
      assertQueueAccess(request.access, queue)
      await follower.follow({
        queue,
        lastEventId: request.headers['last-event-id'],
        snapshot: async (place) => {
          const counts = await registry.counts(queue)
          return { data: JSON.stringify({ queue, counts }), position: place, isOver: false }
        },
        open: () => reply.openEventStream(),
      })
    },
  })
}
