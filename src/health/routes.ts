/** `/health…` and `/stats`: for probes, people and dashboards. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { GUARD_PROBLEMS, problemResponses } from '../errors.ts'
import type { Health } from './health.ts'
import { HealthSummary, Live, Ready, RedisHealth, Stats } from './schemas.ts'

export interface HealthRoutes {
  // biome-ignore lint/suspicious/noExplicitAny: the shapes of both are in the schemas
  health: Health<any, any>
  /** How old the summary may be, ms. */
  summaryTtlMs: number
}

export async function healthRoutes(instance: FastifyInstance, deps: HealthRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { health, summaryTtlMs } = deps
  const tags = ['operations']

  app.get('/health', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getHealth',
      summary: 'How things are, in short',
      description:
        'Kept for HEALTH_TTL (`cached`), for twice that where the API key may not `manage`, or until Redis comes or goes. ' +
        'Queues are those that the key may see, and `recommendations` are for keys that may `manage`.',
      tags,
      response: {
        200: { ...HealthSummary, description: 'It works; see `recommendations`.' },
        ...problemResponses([]),
        503: { ...HealthSummary, description: 'Jobs are not taken.' },
      },
    },
    handler: async ({ access }, reply) => {
      const ttlMs = access.hasScope('manage') ? summaryTtlMs : 2 * summaryTtlMs
      const summary = await health.summary(ttlMs, access)
      return reply.code(summary.status === 'fail' ? 503 : 200).send(summary)
    },
  })

  app.get('/health/live', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getLiveness',
      summary: 'Whether the process lives; never asks Redis',
      tags,
      response: { 200: { ...Live, description: 'It lives.' }, ...problemResponses([]) },
    },
    handler: () => ({ status: 'pass' as const }),
  })

  app.get('/health/ready', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getReadiness',
      summary: 'Whether to send requests here',
      tags,
      response: {
        200: { ...Ready, description: 'Redis answers.' },
        ...problemResponses([]),
        503: { ...Ready, description: 'Redis does not answer, or the service is shutting down.' },
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
      summary: 'Connections, budget, semaphore, server and advice',
      tags,
      response: {
        200: { ...RedisHealth, description: 'It works; see `recommendations`.' },
        ...problemResponses(GUARD_PROBLEMS),
        503: { ...RedisHealth, description: 'Redis does not answer, or takes no jobs.' },
      },
    },
    handler: async ({ access }, reply) => {
      const answer = await health.redis(access)
      return reply.code(answer.status === 'fail' ? 503 : 200).send(answer)
    },
  })

  app.get('/stats', {
    config: { scope: 'manage' },
    schema: {
      operationId: 'getStats',
      summary: 'Cache, batching, pool and commands, as counted by this process',
      tags,
      response: {
        200: { ...Stats, description: 'Asks Redis for nothing.' },
        ...problemResponses(GUARD_PROBLEMS),
      },
    },
    handler: ({ access }) => health.stats(access),
  })
}
