/** The feature `webhooks`: delivers the jobs of a queue to the URL of its subscription. Optional. */
import { Type } from 'typebox'
import type { Advice, FeatureDefinition, SharedParts } from '../feature.ts'
import { createAddressGuard } from './delivery/address-guard.ts'
import { createWebhookClient } from './delivery/webhook-client.ts'
import { webhookRoutes } from './subscriptions/routes.ts'
import { createVault } from './subscriptions/secret-vault.ts'
import { createSubscriptionCheck } from './subscriptions/subscription-check.ts'
import { createSubscriptionManager } from './subscriptions/subscription-manager.ts'
import { createSubscriptionStore } from './subscriptions/subscription-store.ts'

export const webhookFeature: FeatureDefinition = {
  name: 'webhooks',
  isOptional: true,
  create(parts) {
    const { config } = parts
    const guard = createAddressGuard(config.WEBHOOK_ALLOW_CIDRS.split(',').filter((cidr) => cidr !== ''))
    const client = createWebhookClient({ guard, maxResponseBytes: config.WEBHOOK_MAX_RESPONSE })
    const subscriptions = createSubscriptions(parts, client)
    return {
      async routes(http) {
        await http.register(webhookRoutes, { subscriptions, check: createSubscriptionCheck(guard) })
      },
      start: subscriptions.start,
      stop: subscriptions.stop,
      close: client.close,
      stats: { webhooks: { schema: Webhooks, read: subscriptions.stats } },
      advice: () => adviseOnSubscriptions(subscriptions.troubles()),
    }
  },
}

function createSubscriptions(parts: SharedParts, client: ReturnType<typeof createWebhookClient>) {
  const { config, keyspace, gateway, dispatcher, stalledRecovery, statusCache } = parts
  return createSubscriptionManager({
    keyspace,
    dispatcher,
    webhookClient: client,
    log: parts.log,
    store: createSubscriptionStore(keyspace, gateway),
    vault: createVault(parts.secrets),
    onLeased: stalledRecovery.noteLeased,
    onWrite: statusCache.forget,
    maxInFlight: config.WEBHOOK_MAX_IN_FLIGHT,
    pauseAfterMs: config.WEBHOOK_PAUSE_AFTER,
    graceMs: config.SHUTDOWN_TIMEOUT / 2,
    hasOtherReplicas: parts.budget.replicas > 1,
  })
}

export function adviseOnSubscriptions(troubles: { queue: string; reason: string }[]): Advice[] {
  return troubles.map(({ queue, reason }) => ({
    level: 'warn',
    queue,
    sentence:
      `The subscription of ${queue} ${reason}. See GET /queues/${queue}/subscription; ` +
      'repeat its PUT once the endpoint works again.',
  }))
}

const Webhooks = Type.Object(
  {
    subscriptions: Type.Integer({ description: 'Queues whose jobs are delivered to a URL.' }),
    inFlight: Type.Integer({ description: 'Deliveries in flight.' }),
    delivered: Type.Integer({ description: 'Deliveries answered with 2xx.' }),
    retried: Type.Integer({
      description: 'Deliveries that failed and are retried by the backoff of their jobs.',
    }),
    failed: Type.Integer({ description: 'Deliveries that failed their jobs for good.' }),
  },
  { description: 'Deliveries of this process since its start.' },
)
