/** `GET /health…` and `GET /stats`, for probes, people and dashboards. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { GUARD_PROBLEMS, problemResponses } from '../errors.ts'
import { healthStats, type NamedStats, schemasOf } from './feature-stats.ts'
import { type Health, READY_TTL_MS } from './health.ts'
import { createStatsSchema, createSummarySchema, Live, Ready, RedisHealthSchema } from './schemas.ts'

export interface HealthRoutes {
  health: Health
  /** The stats that features add to GET /stats and GET /health. */
  stats: NamedStats
  /** How old a cached summary may be, ms. */
  summaryTtlMs: number
}

/** A caller without `manage` need not have a key, so it gets a summary of this age also with HEALTH_TTL=0, ms. */
const UNPRIVILEGED_TTL_MS = 1_000

export async function healthRoutes(instance: FastifyInstance, deps: HealthRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { health, stats, summaryTtlMs } = deps
  const HealthSummary = createSummarySchema(schemasOf(healthStats(stats)))
  const Stats = createStatsSchema(schemasOf(stats))
  const tags = ['operations']

  app.get('/health', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getHealth',
      summary: 'Health summary',
      description:
        'Cached for HEALTH_TTL (for callers without the scope `manage` twice that, and at least a second), or until a Redis ' +
        'connection opens or closes. Requests at the same time share one measurement. Lists the queues that the key covers; `recommendations` are for keys with the scope `manage`.',
      tags,
      response: {
        200: { ...HealthSummary, description: 'Jobs are accepted; see `recommendations`.' },
        ...problemResponses([]),
        503: { ...HealthSummary, description: 'Jobs are not accepted.' },
      },
    },
    handler: async ({ access }, reply) => {
      const ttlMs = access.hasScope('manage') ? summaryTtlMs : Math.max(2 * summaryTtlMs, UNPRIVILEGED_TTL_MS)
      const summary = await health.summary(ttlMs, access)
      return reply.code(summary.status === 'fail' ? 503 : 200).send(summary)
    },
  })

  app.get('/health/live', {
    config: { scope: 'none', anyHost: true },
    schema: {
      operationId: 'getLiveness',
      summary: 'Liveness of the process; does not use Redis',
      tags,
      response: { 200: { ...Live, description: 'Alive.' }, ...problemResponses([]) },
    },
    handler: () => ({ status: 'pass' as const }),
  })

  app.get('/health/ready', {
    config: { scope: 'none', anyHost: true },
    schema: {
      operationId: 'getReadiness',
      summary: 'Readiness for requests',
      description:
        `Sends Redis one PING for all requests at the same time, and serves the result for ${READY_TTL_MS} ms. A closed ` +
        'connection is reported at once; a Redis that stops responding, once a PING has timed out (REDIS_ADMIN_TIMEOUT).',
      tags,
      response: {
        200: { ...Ready, description: 'Ready: Redis answers.' },
        ...problemResponses([]),
        503: { ...Ready, description: 'Not ready: Redis does not answer, or the service is shutting down.' },
      },
    },
    handler: async (_request, reply) => {
      const { ready, reason } = await health.ready()
      return reply
        .code(ready ? 200 : 503)
        .send({ status: ready ? ('pass' as const) : ('fail' as const), reason })
    },
  })

  app.get('/health/redis', {
    config: { scope: 'manage' },
    schema: {
      operationId: 'getRedisHealth',
      summary: 'Redis connections, budget, server and advice',
      description: 'Always measured; requests at the same time share one measurement.',
      tags,
      response: {
        200: { ...RedisHealthSchema, description: 'Jobs are accepted; see `recommendations`.' },
        ...problemResponses(GUARD_PROBLEMS),
        503: { ...RedisHealthSchema, description: 'Redis does not answer, or accepts no jobs.' },
      },
    },
    handler: async ({ access }, reply) => {
      const response = await health.redis(access)
      return reply.code(response.status === 'fail' ? 503 : 200).send(response)
    },
  })

  app.get('/stats', {
    config: { scope: 'manage' },
    schema: {
      operationId: 'getStats',
      summary: 'Counters of this process',
      tags,
      response: {
        200: { ...Stats, description: 'Counted in memory; reading them sends no Redis command.' },
        ...problemResponses(GUARD_PROBLEMS),
      },
    },
    handler: ({ access }) => health.stats(access),
  })
}
