/** `PUT`, `GET`, `DELETE /queues/:queue/subscription`, and new secrets. Parse, one call of the domain, answer. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { assertQueueAccess } from '../../auth/access.ts'
import {
  BODY_PROBLEMS,
  type ErrorCode,
  GUARD_PROBLEMS,
  problemResponses,
  REDIS_PROBLEMS,
} from '../../errors.ts'
import { RotateBody, SubscriptionBody, SubscriptionParams, SubscriptionState } from './schemas.ts'
import { describeSubscription, OVERLAP_S, type Subscription } from './subscription.ts'
import type { SubscriptionManager } from './subscription-manager.ts'

export interface WebhookRoutes {
  push: SubscriptionManager
  /** Throws INVALID_OPTION for what may not be sent to, or with. */
  check(body: SubscriptionBody): Promise<void>
}

const PROBLEMS: ErrorCode[] = ['INVALID_NAME', 'QUEUE_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]
const config = { scope: 'work' } as const
const tags = ['work']

export async function webhookRoutes(
  instance: FastifyInstance,
  { push, check }: WebhookRoutes,
): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()

  function show(subscription: Subscription, secret?: string) {
    const { queue } = subscription
    return {
      ...describeSubscription(subscription, new Date()),
      deliveries: push.statsOf(queue) ?? null,
      ...(secret === undefined ? {} : { secret }),
    }
  }

  app.put('/queues/:queue/subscription', {
    config,
    schema: {
      operationId: 'putSubscription',
      summary: 'Have the jobs of a queue sent to a URL',
      description:
        'Each job is POSTed as `{"id","queue","name","attempt","attempts","data"}`, signed by Standard Webhooks. 2xx completes it, and a ' +
        'JSON body is its result; 408, 425, 429, 5xx and no answer count as a failed attempt, to be repeated by its backoff or at ' +
        'Retry-After; 410 pauses the subscription; any other answer fails it for good. Redirects are not followed. What is ' +
        'missing here is as by default, whatever it was before; only the secrets stay.',
      tags,
      params: SubscriptionParams,
      body: SubscriptionBody,
      response: {
        200: { ...SubscriptionState, description: 'It was replaced.' },
        201: {
          ...SubscriptionState,
          description: 'It is new; `secret` is shown this once, unless it was given.',
        },
        ...problemResponses(['INVALID_OPTION', 'TOO_MANY_SUBSCRIPTIONS', ...BODY_PROBLEMS, ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { queue } = request.params
      assertQueueAccess(request.access, queue)
      await check(request.body)
      const { subscription, secret, isNew } = await push.put(queue, request.body)
      reply.code(isNew ? 201 : 200)
      return show(subscription, secret)
    },
  })

  app.get('/queues/:queue/subscription', {
    config,
    exposeHeadRoute: false,
    schema: {
      operationId: 'getSubscription',
      summary: 'Where the jobs of a queue are sent, and how that goes',
      tags,
      params: SubscriptionParams,
      response: {
        200: { ...SubscriptionState, description: 'The subscription.' },
        ...problemResponses(['SUBSCRIPTION_NOT_FOUND', ...PROBLEMS]),
      },
    },
    handler: async (request) => {
      const { queue } = request.params
      assertQueueAccess(request.access, queue)
      return show(await push.find(queue))
    },
  })

  app.delete('/queues/:queue/subscription', {
    config,
    schema: {
      operationId: 'deleteSubscription',
      summary: 'Send no more jobs of a queue',
      description: 'What is on its way ends as it would have. The jobs that wait go on waiting.',
      tags,
      params: SubscriptionParams,
      response: {
        204: { type: 'null', description: 'It is gone.' },
        ...problemResponses(['SUBSCRIPTION_NOT_FOUND', ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { queue } = request.params
      assertQueueAccess(request.access, queue)
      await push.remove(queue)
      return reply.code(204).send(null)
    },
  })

  app.post('/queues/:queue/subscription/secrets', {
    config,
    schema: {
      operationId: 'rotateSecret',
      summary: 'Sign with a new secret',
      description: 'Those before sign as well for `overlap` seconds, so that the receiver can change over.',
      tags,
      params: SubscriptionParams,
      body: RotateBody,
      response: {
        201: { ...SubscriptionState, description: 'The new `secret`, shown this once.' },
        ...problemResponses(['SUBSCRIPTION_NOT_FOUND', ...BODY_PROBLEMS, ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { queue } = request.params
      assertQueueAccess(request.access, queue)
      const { subscription, secret } = await push.rotate(queue, request.body.overlap ?? OVERLAP_S)
      reply.code(201)
      return show(subscription, secret)
    },
  })
}
