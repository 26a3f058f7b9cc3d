/** The feature `webhooks`: delivers the jobs of a queue to the URL of its subscription. Optional. */
import { Type } from 'typebox'
import type { Advice, FeatureDefinition, SharedParts } from '../feature.ts'
import { quoteName } from '../queues/queue-name.ts'
import type { DeliveryClock } from './delivery/delivery-record.ts'
import { createAddressGuard } from './endpoints/address-guard.ts'
import { createNameResolver } from './endpoints/name-resolver.ts'
import { createWebhookClient, type WebhookClient } from './endpoints/webhook-client.ts'
import { webhookRoutes } from './subscriptions/routes.ts'
import { createVault } from './subscriptions/secret-vault.ts'
import { createSubscriptionCheck } from './subscriptions/subscription-check.ts'
import { createSubscriptionManager } from './subscriptions/subscription-manager.ts'
import { createSubscriptionStore } from './subscriptions/subscription-store.ts'

export const webhookFeature: FeatureDefinition = {
  name: 'webhooks',
  isOptional: true,
  create(parts) {
    const { config, log, redisClock: clock } = parts
    const guard = createAddressGuard({
      allowCidrs: config.WEBHOOK_ALLOW_CIDRS.split(',').filter((cidr) => cidr !== ''),
      lookup: createNameResolver().lookup,
      onRefused: (name, reason) => log.warn({ name, reason }, 'Webhook name refused'),
    })
    const client = createWebhookClient({ guard, maxResponseBytes: config.WEBHOOK_MAX_RESPONSE })
    const subscriptions = createSubscriptions(parts, client, clock)
    return {
      async routes(http) {
        await http.register(webhookRoutes, { subscriptions, check: createSubscriptionCheck(guard), clock })
      },
      start: subscriptions.start,
      stop: subscriptions.stop,
      close: client.close,
      stats: { webhooks: { schema: Webhooks, read: subscriptions.stats } },
      advice: () => adviseOnSubscriptions(subscriptions.troubles(), subscriptions.problem()),
    }
  },
}

function createSubscriptions(parts: SharedParts, webhookClient: WebhookClient, clock: DeliveryClock) {
  const { config, keyspace, gateway, dispatcher, stalledRecovery, statusCache } = parts
  return createSubscriptionManager({
    keyspace,
    dispatcher,
    webhookClient,
    clock,
    log: parts.log,
    store: createSubscriptionStore(keyspace, gateway, config.WEBHOOK_MAX_SUBSCRIPTIONS),
    vault: createVault(parts.secrets, { opensOldSeals: config.WEBHOOK_OPEN_OLD_SEALS }),
    onLeased: stalledRecovery.noteLeased,
    onWrite: statusCache.forget,
    maxInFlight: config.WEBHOOK_MAX_IN_FLIGHT,
    pauseAfterMs: config.WEBHOOK_PAUSE_AFTER,
    graceMs: config.SHUTDOWN_TIMEOUT / 2,
    hasOtherReplicas: parts.budget.replicas > 1,
  })
}

export function adviseOnSubscriptions(
  troubles: { queue: string; reason: string }[],
  problem?: string,
): Advice[] {
  const advice = troubles.map(
    ({ queue, reason }): Advice => ({
      level: 'warn',
      queue,
      sentence:
        `The subscription of ${quoteName(queue)} ${reason}. See GET /queues/{queue}/subscription; ` +
        'repeat its PUT once the cause is removed.',
    }),
  )
  return problem === undefined ? advice : [{ level: 'warn', sentence: problem }, ...advice]
}

const Webhooks = Type.Object(
  {
    subscriptions: Type.Integer({ description: 'Queues whose jobs are delivered to a URL.' }),
    malformed: Type.Integer({ description: 'Subscriptions that are malformed in Redis and not delivered.' }),
    refused: Type.Integer({ description: 'New subscriptions refused because of WEBHOOK_MAX_SUBSCRIPTIONS.' }),
    inFlight: Type.Integer({ description: 'Deliveries in flight.' }),
    delivered: Type.Integer({ description: 'Deliveries answered with 2xx.' }),
    retried: Type.Integer({
      description: 'Deliveries that failed and are retried by the backoff of their jobs.',
    }),
    postponed: Type.Integer({
      description:
        'Deliveries that could not start, such as while DNS did not respond; they used no attempt.',
    }),
    failed: Type.Integer({ description: 'Deliveries that failed their jobs for good.' }),
  },
  { description: 'Deliveries of this process since its start.' },
)
