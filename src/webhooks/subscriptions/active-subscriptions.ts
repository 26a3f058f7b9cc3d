/**
 * The subscriptions that this process knows, and the delivery worker of each. A subscription is `active` (it
 * has a worker), `paused`, `unreadable` (its seals do not open) or `malformed`; the last three have no worker.
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
import { createJudge } from '../delivery/verdict.ts'
import type { Vault } from './secret-vault.ts'
import { hasOldSeals, type Subscription, unseal } from './subscription.ts'
import { isMalformed, type StoredSubscription } from './subscription-record.ts'
import { concurrencyLimitOf, planWorker, troubleOf } from './subscription-state.ts'

export interface ActiveSubscriptions {
  /**
   * Makes `stored` the subscription of its queue, and starts, stops or replaces the worker. `undefined`: there
   * is none now.
   */
  apply(queue: string, stored: StoredSubscription | undefined): void
  /** Whether a worker of this process delivers for this revision of the subscription. */
  isDelivering(subscription: Pick<Subscription, 'queue' | 'revision'>): boolean
  /** The queues of all known subscriptions. */
  queues(): Iterable<string>
  /** `undefined`: the queue has no worker in this process. */
  statsOf(queue: string): DeliveryWorkerStats | undefined
  /** Why `stored` delivers nothing in this process, or fails; `undefined`: it delivers. */
  troubleOf(stored: StoredSubscription): string | undefined
  stats(): WebhookTotals
  troubles(): SubscriptionTrouble[]
  /** Stops all workers; resolves when their deliveries have ended or `graceMs` is over. */
  stop(): Promise<void>
}

/** Of this process, since its start. */
export interface WebhookTotals extends Record<DeliveryOutcome, number> {
  subscriptions: number
  malformed: number
  inFlight: number
}

export interface SubscriptionTrouble {
  queue: string
  /** A predicate for "The subscription of emails …". */
  reason: string
}

/** The dependencies of workers, except those that belong to this module. */
export interface ActiveSubscriptionsDeps extends Omit<DeliveryWorkerDeps, 'slots' | 'judge' | 'onEnded'> {
  keyspace: Keyspace
  vault: Vault
  /** How many deliveries may be in flight at once, of all subscriptions. */
  maxInFlight: number
  /** How long deliveries in flight may take when their worker stops, ms. */
  graceMs: number
  /** A subscription with seals of version 0.1.0 has been opened. */
  onOldSeals(subscription: Subscription): void
}

export function createActiveSubscriptions(deps: ActiveSubscriptionsDeps): ActiveSubscriptions {
  const { keyspace, vault, maxInFlight, graceMs, log } = deps
  const known = new Map<string, StoredSubscription>()
  const workers = new Map<string, DeliveryWorker>()
  const stoppingWorkers = new Set<Promise<void>>()
  const slots = createDeliverySlots(maxInFlight)
  const totals = { delivered: 0, retried: 0, postponed: 0, failed: 0 }
  const workerDeps: DeliveryWorkerDeps = {
    ...deps,
    slots,
    judge: createJudge(),
    onEnded: (outcome) => void totals[outcome]++,
  }
  let isStopping = false

  function apply(queue: string, stored: StoredSubscription | undefined): void {
    const plan = planWorker(workers.get(queue)?.subscription.revision, stored, isStopping)
    if (plan.stop) stopWorker(queue)
    if (stored) known.set(queue, stored)
    else known.delete(queue)
    if (!stored) return
    if (isMalformed(stored))
      log.error({ queue, problem: stored.problem }, 'Webhook subscription is malformed')
    else if (plan.start) startWorker(stored)
  }

  function startWorker(subscription: Subscription): void {
    const { queue } = subscription
    const unsealed = unseal(subscription, vault)
    if (!unsealed) {
      log.error({ queue }, 'Webhook secrets cannot be opened; see the recommendations of /health')
      return
    }
    if (hasOldSeals(subscription)) deps.onOldSeals(subscription)
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
    return [...known.values()].flatMap((stored) => {
      const { queue } = stored
      const reason = troubleOf(stored, workers.get(queue))
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
    troubleOf(stored) {
      const { queue } = stored
      // Another process has just written it, and this one has not read it yet.
      if (known.get(queue)?.revision !== stored.revision) return undefined
      return troubleOf(stored, workers.get(queue))
    },
    stats() {
      const malformed = [...known.values()].filter(isMalformed).length
      return { subscriptions: known.size - malformed, malformed, inFlight: slots.inUse(), ...totals }
    },
    troubles,
    stop,
  }
}
