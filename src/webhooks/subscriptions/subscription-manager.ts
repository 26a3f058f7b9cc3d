/**
 * Creates, changes and removes subscriptions, and runs those of this process. A change made here takes effect
 * at once. Another replica notices a new subscription within a minute, and any other change with its next
 * take, which returns no jobs if its revision differs from the one in Redis.
 */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import type { DeliveryWorkerStats } from '../delivery/delivery-worker.ts'
import {
  type ActiveSubscriptionsDeps,
  createActiveSubscriptions,
  type SubscriptionTrouble,
  type WebhookTotals,
} from './active-subscriptions.ts'
import {
  pauseSubscription,
  replaceSubscription,
  rotateSecret,
  type Subscription,
  type SubscriptionChange,
  type SubscriptionRequest,
} from './subscription.ts'
import { createSubscriptionRefresh } from './subscription-refresh.ts'
import type { SubscriptionStore } from './subscription-store.ts'

export interface SubscriptionManager {
  put(queue: string, request: SubscriptionRequest): Promise<SubscriptionChange & { isNew: boolean }>
  /** `find`, `rotate` and `remove` reject with SUBSCRIPTION_NOT_FOUND. */
  find(queue: string): Promise<Subscription>
  rotate(queue: string, overlapS: number): Promise<SubscriptionChange>
  remove(queue: string): Promise<void>
  /** Deliveries of this process; `undefined`: it delivers nothing for the queue. */
  statsOf(queue: string): DeliveryWorkerStats | undefined
  stats(): WebhookTotals
  /** Subscriptions that deliver nothing, or fail. */
  troubles(): SubscriptionTrouble[]
  /** Reads the subscriptions from Redis; call it after every connect. */
  start(): void
  stop(): Promise<void>
}

export interface SubscriptionManagerDeps extends Omit<ActiveSubscriptionsDeps, 'onGone' | 'onChanged'> {
  store: SubscriptionStore
  /** Whether other replicas of the service write subscriptions as well. */
  hasOtherReplicas: boolean
}

/** How often a change is tried while other requests change the same subscription. */
const MAX_TRIES = 5

export function createSubscriptionManager(deps: SubscriptionManagerDeps): SubscriptionManager {
  const { store, vault, hasOtherReplicas, log } = deps
  const onChanged = (queue: string) => refresh.reload(queue)
  const active = createActiveSubscriptions({ ...deps, onGone: pauseGone, onChanged })
  const refresh = createSubscriptionRefresh(store, active, hasOtherReplicas)

  /** Reads, changes and writes the subscription, and starts over when another write came between. */
  async function change<T extends { subscription: Subscription }>(
    queue: string,
    apply: (before: Subscription | undefined) => T,
  ): Promise<T & { isNew: boolean }> {
    for (let tries = 1; tries <= MAX_TRIES; tries++) {
      const before = await store.find(queue)
      const changed = apply(before)
      if (!(await store.write(changed.subscription, before))) continue
      active.apply(queue, changed.subscription)
      return { ...changed, isNew: before === undefined }
    }
    throw new SluiceError('OVERLOADED', {
      detail: `Other requests change this subscription at the same time. ${REPEAT_LATER}`,
      outcome: 'not_executed',
    })
  }

  /** Pauses the subscription unless it has been changed since: the endpoint refused or failed the old one. */
  function pauseGone(subscription: Subscription, reason: string): void {
    if (!active.isDelivering(subscription)) return
    const { queue, revision } = subscription
    log.warn({ queue, reason }, 'Webhook subscription paused')
    change(queue, (before) => {
      if (before?.revision !== revision) throw new Error('The subscription has changed')
      return { subscription: pauseSubscription(before, reason, new Date()) }
    }).catch(() => {})
  }

  async function find(queue: string): Promise<Subscription> {
    return existing(await store.find(queue))
  }

  async function remove(queue: string): Promise<void> {
    await find(queue)
    await store.remove(queue)
    active.apply(queue, undefined)
  }

  async function stop(): Promise<void> {
    refresh.stop()
    await active.stop()
  }

  return {
    put: (queue, request) =>
      change(queue, (before) => replaceSubscription(queue, before, request, vault, new Date())),
    find,
    rotate: (queue, overlapS) =>
      change(queue, (before) => rotateSecret(existing(before), overlapS, vault, new Date())),
    remove,
    statsOf: active.statsOf,
    stats: active.stats,
    troubles: active.troubles,
    start: refresh.start,
    stop,
  }
}

function existing(subscription: Subscription | undefined): Subscription {
  if (subscription) return subscription
  throw new SluiceError('SUBSCRIPTION_NOT_FOUND')
}
