/** `GET /jobs/:id/events`: what happens to one job, as it happens. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { GUARD_PROBLEMS, problemResponses, REDIS_PROBLEMS, SluiceError } from '../../errors.ts'
import type { EventFollower, Snapshot } from '../../events/event-follower.ts'
import { EventHeaders, eventStreamResponses } from '../../queues/schemas.ts'
import { isAfter } from '../../redis/streams/stream-position.ts'
import { type JobRef, parseJobId } from '../job-id.ts'
import { JobParams } from './schemas.ts'
import type { StatusCache } from './status-cache.ts'

export interface JobEventRoutes {
  /** Of an id without a queue. */
  defaultQueue: string
  statusCache: StatusCache
  follower: EventFollower
}

export async function jobEventRoutes(instance: FastifyInstance, deps: JobEventRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { defaultQueue, statusCache, follower } = deps

  app.get('/jobs/:id/events', {
    config: { scope: 'read' },
    exposeHeadRoute: false,
    schema: {
      operationId: 'followJob',
      summary: 'Follow a job by server-sent events',
      description:
        '`snapshot` (the job), then `state` and `progress` as they happen; ends after completed, failed or removed. Whoever comes ' +
        'back with Last-Event-ID gets what was missed, or `gap` and a new snapshot where that is not known; 204 when it had all.',
      tags: ['jobs'],
      params: JobParams,
      headers: EventHeaders,
      response: {
        ...eventStreamResponses,
        ...problemResponses(['JOB_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const ref = parseJobId(request.params.id, defaultQueue)
      if (!ref || !request.access.canAccessQueue(ref.queue)) throw new SluiceError('JOB_NOT_FOUND')
      const outcome = await follower.follow({
        ...ref,
        lastEventId: request.headers['last-event-id'],
        snapshot: (subscribedAt) => snapshot(ref, subscribedAt),
        open: () => reply.openEventStream(),
      })
      if (outcome === 'over') return reply.code(204).send(null)
    },
  })

  /** What memory holds is as good as new: no later event has spoken of the job. */
  async function snapshot({ queue, key }: JobRef, subscribedAt: string): Promise<Snapshot> {
    const include = { data: false, logs: false }
    const { job, place } =
      statusCache.peek(`${queue}:${key}`, include, Date.now()) ??
      (await statusCache.fetch({ queue, key }, include))
    if (!job) throw new SluiceError('JOB_NOT_FOUND')
    return {
      data: job.body,
      position: isAfter(subscribedAt, place) ? subscribedAt : place,
      isOver: job.finished,
    }
  }
}
