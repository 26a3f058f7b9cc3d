/** `GET /jobs/:id/events`: the events of one job, as server-sent events. */
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
  /** Queue of an id that names none. */
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
      summary: 'Follow a job',
      description:
        'Server-sent events: a `snapshot` of the job, then `state` and `progress` as they happen. The stream ends after completed, ' +
        'failed or removed. A client that reconnects with Last-Event-ID receives the events that it missed, or `gap` and a new ' +
        'snapshot if they are no longer available, or 204 if it had seen the end.',
      tags: ['jobs'],
      params: JobParams,
      headers: EventHeaders,
      response: {
        ...eventStreamResponses,
        ...problemResponses(['JOB_NOT_FOUND', 'TOO_MANY_WAITS', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const ref = parseJobId(request.params.id, defaultQueue)
      if (!ref || !request.access.canAccessQueue(ref.queue)) throw new SluiceError('JOB_NOT_FOUND')
      const wait = reply.beginWait({ queue: ref.queue })
      const outcome = await follower.follow({
        ...ref,
        lastEventId: request.headers['last-event-id'],
        snapshot: (subscribedAt) => readSnapshot(ref, subscribedAt),
        open: () => reply.openEventStream(wait),
      })
      if (outcome === 'over') return reply.code(204).send(null)
    },
  })

  /** A cached job will do: any later event about it would have removed it from the cache. */
  async function readSnapshot({ queue, key }: JobRef, subscribedAt: string): Promise<Snapshot> {
    const include = { data: false, logs: false }
    const { job, position } =
      statusCache.peek(`${queue}:${key}`, include, performance.now()) ??
      (await statusCache.fetch({ queue, key }, include))
    if (!job) throw new SluiceError('JOB_NOT_FOUND')
    return {
      data: job.body.toString(),
      position: isAfter(subscribedAt, position) ? subscribedAt : position,
      isOver: job.finished,
    }
  }
}
