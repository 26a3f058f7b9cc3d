/**
 * The subscriptions that this process knows, and the delivery worker of each. A subscription is `active` (it
 * has a worker), `paused`, or `unreadable` (sealed with a SECRET that is no longer configured); the last two
 * have no worker.
 */

import type { Keyspace } from '../../redis/keyspace.ts'
import type { DeliveryOutcome } from '../delivery/delivery-record.ts'
import { createDeliverySlots } from '../delivery/delivery-slots.ts'
import {
  createDeliveryWorker,
  type DeliveryWorker,
  type DeliveryWorkerDeps,
  type DeliveryWorkerStats,
} from '../delivery/delivery-worker.ts'
import type { Vault } from './secret-vault.ts'
import { type Subscription, unseal } from './subscription.ts'
import { concurrencyLimitOf, planWorker, troubleOf } from './subscription-state.ts'

export interface ActiveSubscriptions {
  /**
   * Makes `subscription` the one of its queue, and starts, stops or replaces the worker. `undefined`: there
   * is none now.
   */
  apply(queue: string, subscription: Subscription | undefined): void
  /** Whether a worker of this process delivers for this revision of the subscription. */
  isDelivering(subscription: Pick<Subscription, 'queue' | 'revision'>): boolean
  /** The queues of all known subscriptions. */
  queues(): Iterable<string>
  /** `undefined`: the queue has no worker in this process. */
  statsOf(queue: string): DeliveryWorkerStats | undefined
  stats(): WebhookTotals
  troubles(): SubscriptionTrouble[]
  /** Stops all workers; resolves when their deliveries have ended or `graceMs` is over. */
  stop(): Promise<void>
}

/** Of this process, since its start. */
export interface WebhookTotals extends Record<DeliveryOutcome, number> {
  subscriptions: number
  inFlight: number
}

export interface SubscriptionTrouble {
  queue: string
  /** A predicate for "The subscription of emails …". */
  reason: string
}

/** The dependencies of workers, except the slots and the totals, which belong to this module. */
export interface ActiveSubscriptionsDeps extends Omit<DeliveryWorkerDeps, 'slots' | 'onEnded'> {
  keyspace: Keyspace
  vault: Vault
  /** How many deliveries may be in flight at once, of all subscriptions. */
  maxInFlight: number
  /** How long deliveries in flight may take when their worker stops, ms. */
  graceMs: number
}

export function createActiveSubscriptions(deps: ActiveSubscriptionsDeps): ActiveSubscriptions {
  const { keyspace, vault, maxInFlight, graceMs, log } = deps
  const known = new Map<string, Subscription>()
  const workers = new Map<string, DeliveryWorker>()
  const stoppingWorkers = new Set<Promise<void>>()
  const slots = createDeliverySlots(maxInFlight)
  const totals = { delivered: 0, retried: 0, failed: 0 }
  const workerDeps: DeliveryWorkerDeps = {
    ...deps,
    slots,
    onEnded: (outcome) => void totals[outcome]++,
  }
  let isStopping = false

  function apply(queue: string, subscription: Subscription | undefined): void {
    const plan = planWorker(workers.get(queue)?.subscription.revision, subscription, isStopping)
    if (plan.stop) stopWorker(queue)
    if (subscription) known.set(queue, subscription)
    else known.delete(queue)
    if (plan.start && subscription) startWorker(subscription)
  }

  function startWorker(subscription: Subscription): void {
    const { queue } = subscription
    const unsealed = unseal(subscription, vault)
    if (!unsealed) {
      log.error({ queue }, 'Webhook secrets were sealed with another SECRET; put the subscription again')
      return
    }
    const limit = concurrencyLimitOf(subscription, keyspace)
    workers.set(queue, createDeliveryWorker(subscription, unsealed, limit, workerDeps))
  }

  function stopWorker(queue: string): void {
    const worker = workers.get(queue)
    if (!worker) return
    workers.delete(queue)
    const stopped = worker.stop(graceMs).finally(() => stoppingWorkers.delete(stopped))
    stoppingWorkers.add(stopped)
  }

  function troubles(): SubscriptionTrouble[] {
    return [...known.values()].flatMap((subscription) => {
      const { queue } = subscription
      const reason = troubleOf(subscription, workers.get(queue)?.stats())
      return reason === undefined ? [] : [{ queue, reason }]
    })
  }

  async function stop(): Promise<void> {
    isStopping = true
    for (const queue of [...workers.keys()]) apply(queue, undefined)
    await Promise.all(stoppingWorkers)
  }

  return {
    apply,
    isDelivering: ({ queue, revision }) => workers.get(queue)?.subscription.revision === revision,
    queues: () => known.keys(),
    statsOf: (queue) => workers.get(queue)?.stats(),
    stats: () => ({ subscriptions: known.size, inFlight: slots.inUse(), ...totals }),
    troubles,
    stop,
  }
}
