/** `PUT`, `GET` and `DELETE /queues/:queue/subscription`, and the rotation of its secret. */
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
import { QueueParams, queueIn } from '../../queues/schemas.ts'
import type { DeliveryClock } from '../delivery/delivery-record.ts'
import { RotateBody, SubscriptionBody, SubscriptionState } from './schemas.ts'
import { DEFAULT_OVERLAP_S, describeSubscription, type Subscription } from './subscription.ts'
import type { SubscriptionManager } from './subscription-manager.ts'

export interface WebhookRoutes {
  subscriptions: SubscriptionManager
  /** Rejects with INVALID_OPTION for a URL, secret or header that may not be used. */
  check(body: SubscriptionBody): Promise<void>
  clock: DeliveryClock
}

const PROBLEMS: ErrorCode[] = ['INVALID_NAME', 'QUEUE_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]
const config = { scope: 'work' } as const
const tags = ['work']

const putSubscriptionSchema = {
  operationId: 'putSubscription',
  summary: 'Deliver the jobs of a queue to a URL',
  description:
    'Each job is POSTed as `{"id","queue","name","attempt","attempts","data"}` and signed according to ' +
    'Standard Webhooks. A 2xx response completes the job; a JSON body becomes its result. 408, 425, 429, 5xx ' +
    'or no response is a failed attempt, which is retried after the backoff of the job or after Retry-After. ' +
    '410 pauses the subscription. Any other status fails the job permanently; redirects are not followed. ' +
    'Omitted fields are reset to their defaults; only the secrets are kept.',
  tags,
  params: QueueParams,
  body: SubscriptionBody,
  response: {
    200: { ...SubscriptionState, description: 'The subscription was replaced.' },
    201: {
      ...SubscriptionState,
      description: 'The subscription was created. A generated `secret` is shown only in this response.',
    },
    ...problemResponses(['INVALID_OPTION', 'TOO_MANY_SUBSCRIPTIONS', ...BODY_PROBLEMS, ...PROBLEMS]),
  },
}

const rotateSecretSchema = {
  operationId: 'rotateSecret',
  summary: 'Rotate the signing secret',
  description:
    'Earlier secrets keep signing beside the new one for `overlap` seconds, so that the endpoint can ' +
    'switch over.',
  tags,
  params: QueueParams,
  body: RotateBody,
  response: {
    201: {
      ...SubscriptionState,
      description: 'The subscription with its new `secret`, which is shown only in this response.',
    },
    ...problemResponses(['SUBSCRIPTION_NOT_FOUND', 'SUBSCRIPTION_MALFORMED', ...BODY_PROBLEMS, ...PROBLEMS]),
  },
}

export async function webhookRoutes(
  instance: FastifyInstance,
  { subscriptions, check, clock }: WebhookRoutes,
): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()

  function present(subscription: Subscription, secret?: string) {
    return {
      ...describeSubscription(subscription, new Date(clock.nowMs())),
      problem: subscriptions.troubleOf(subscription) ?? null,
      deliveries: subscriptions.statsOf(subscription.queue) ?? null,
      ...(secret === undefined ? {} : { secret }),
    }
  }

  app.put('/queues/:queue/subscription', {
    config,
    schema: putSubscriptionSchema,
    handler: async (request, reply) => {
      const queue = queueIn(request.params)
      assertQueueAccess(request.access, queue)
      await check(request.body)
      const by = { queue, keyId: request.access.keyId }
      const { subscription, secret, isNew } = await subscriptions.put(by, request.body)
      reply.code(isNew ? 201 : 200)
      return present(subscription, secret)
    },
  })

  app.get('/queues/:queue/subscription', {
    config,
    exposeHeadRoute: false,
    schema: {
      operationId: 'getSubscription',
      summary: 'Get the subscription of a queue and its delivery statistics',
      tags,
      params: QueueParams,
      response: {
        200: { ...SubscriptionState, description: 'The subscription.' },
        ...problemResponses(['SUBSCRIPTION_NOT_FOUND', 'SUBSCRIPTION_MALFORMED', ...PROBLEMS]),
      },
    },
    handler: async (request) => {
      const queue = queueIn(request.params)
      assertQueueAccess(request.access, queue)
      return present(await subscriptions.find(queue))
    },
  })

  app.delete('/queues/:queue/subscription', {
    config,
    schema: {
      operationId: 'deleteSubscription',
      summary: 'Stop delivering the jobs of a queue',
      description: 'Deliveries in flight are completed and settled. Waiting jobs stay in the queue.',
      tags,
      params: QueueParams,
      response: {
        204: { type: 'null', description: 'The subscription was deleted.' },
        ...problemResponses(['SUBSCRIPTION_NOT_FOUND', ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const queue = queueIn(request.params)
      assertQueueAccess(request.access, queue)
      await subscriptions.remove(queue)
      return reply.code(204).send(null)
    },
  })

  app.post('/queues/:queue/subscription/secrets', {
    config,
    schema: rotateSecretSchema,
    handler: async (request, reply) => {
      const queue = queueIn(request.params)
      assertQueueAccess(request.access, queue)
      const { subscription, secret } = await subscriptions.rotate(
        queue,
        request.body.overlap ?? DEFAULT_OVERLAP_S,
      )
      reply.code(201)
      return present(subscription, secret)
    },
  })
}
