/** The feature `health`: GET /health, /health/live, /health/ready, /health/redis and /stats. Required. */
import type { FeatureDefinition } from '../feature.ts'
import { collectStats } from './feature-stats.ts'
import { createHealth } from './health.ts'
import { healthRoutes } from './routes.ts'

export const healthFeature: FeatureDefinition = {
  name: 'health',
  isOptional: false,
  create(parts, earlier) {
    const health = createHealth(parts, earlier)
    const stats = collectStats(earlier)
    return {
      async routes(http) {
        await http.register(healthRoutes, { health, stats, summaryTtlMs: parts.config.HEALTH_TTL })
      },
    }
  },
}
