/** The feature `events`: GET /jobs/:id/events and GET /queues/:queue/events, over server-sent events. Optional. */
import { createEventFollower } from '../../events/event-follower.ts'
import { createEventHistory } from '../../events/event-history.ts'
import type { FeatureDefinition } from '../../feature.ts'
import { queueRoutes } from '../../queues/routes.ts'
import { jobEventRoutes } from './event-routes.ts'

export const eventFeature: FeatureDefinition = {
  name: 'events',
  isOptional: true,
  usesEventStreams: true,
  create({ config, registry, gateway, byteBudget, keyspace, queueEvents, statusCache }) {
    const { MAX_ANSWER_BYTES: maxEventBytes } = config
    const history = createEventHistory({ keyspace, gateway, byteBudget, maxEventBytes })
    const follower = createEventFollower(queueEvents, history, maxEventBytes)
    return {
      async routes(http) {
        await http.register(jobEventRoutes, { defaultQueue: config.DEFAULT_QUEUE, statusCache, follower })
        await http.register(queueRoutes, { registry, follower })
      },
    }
  },
}
