/**
 * Creates, changes and removes subscriptions, and runs those of this process. A change made here takes effect
 * at once. Another replica notices a new subscription within a minute, and any other change with its next
 * take, which returns no jobs if its revision differs from the one in Redis.
 */
import { SluiceError } from '../../errors.ts'
import { quoteName } from '../../queues/queue-name.ts'
import type { DeliveryWorkerStats } from '../delivery/delivery-worker.ts'
import {
  type ActiveSubscriptionsDeps,
  createActiveSubscriptions,
  type SubscriptionTrouble,
  type WebhookTotals,
} from './active-subscriptions.ts'
import { changedElsewhere, createChangesInTurn } from './changes-in-turn.ts'
import {
  hasOldSeals,
  pauseSubscription,
  replaceSubscription,
  resealSubscription,
  rotateSecret,
  type Subscription,
  type SubscriptionChange,
  type SubscriptionPut,
  type SubscriptionRequest,
} from './subscription.ts'
import { isMalformed, type StoredSubscription } from './subscription-record.ts'
import { createSubscriptionRefresh } from './subscription-refresh.ts'
import type { SubscriptionStore } from './subscription-store.ts'

export interface SubscriptionManager {
  put(to: SubscriptionPut, request: SubscriptionRequest): Promise<SubscriptionChange & { isNew: boolean }>
  /** These reject with SUBSCRIPTION_NOT_FOUND; all but `remove` with SUBSCRIPTION_MALFORMED. */
  find(queue: string): Promise<Subscription>
  rotate(queue: string, overlapS: number): Promise<SubscriptionChange>
  remove(queue: string): Promise<void>
  /** Why the subscription delivers nothing in this process, or fails; `undefined`: it delivers. */
  troubleOf(subscription: Subscription): string | undefined
  /** Deliveries of this process; `undefined`: it delivers nothing for the queue. */
  statsOf(queue: string): DeliveryWorkerStats | undefined
  stats(): WebhookTotals & { refused: number }
  /** Subscriptions that deliver nothing, or fail. */
  troubles(): SubscriptionTrouble[]
  /** Why the subscriptions of this process are not those in Redis, for an operator; `undefined`: they are. */
  problem(): string | undefined
  /** Reads the subscriptions from Redis; call it after every connect. */
  start(): void
  stop(): Promise<void>
}

export interface SubscriptionManagerDeps
  extends Omit<ActiveSubscriptionsDeps, 'onGone' | 'onChanged' | 'onOldSeals'> {
  store: SubscriptionStore
  /** Whether other replicas of the service write subscriptions as well. */
  hasOtherReplicas: boolean
}

/** How often a change is tried while other replicas change the same subscription. */
const MAX_TRIES = 5

export function createSubscriptionManager(deps: SubscriptionManagerDeps): SubscriptionManager {
  const { store, vault, hasOtherReplicas, log, clock } = deps
  const now = () => new Date(clock.nowMs())
  const inTurn = createChangesInTurn()
  const onChanged = (queue: string) => refresh.reload(queue)
  const active = createActiveSubscriptions({ ...deps, onGone: pauseGone, onChanged, onOldSeals: reseal })
  const refresh = createSubscriptionRefresh(store, active, hasOtherReplicas)

  /** Reads, changes and writes the subscription, and starts over when another replica has written between. */
  function change<T extends { subscription: Subscription }>(
    queue: string,
    apply: (before: StoredSubscription | undefined) => T,
  ): Promise<T & { isNew: boolean }> {
    return inTurn(queue, () => changeNow(queue, apply))
  }

  async function changeNow<T extends { subscription: Subscription }>(
    queue: string,
    apply: (before: StoredSubscription | undefined) => T,
  ): Promise<T & { isNew: boolean }> {
    for (let tries = 1; tries <= MAX_TRIES; tries++) {
      const before = await store.find(queue)
      const changed = apply(before)
      if (!(await store.write(changed.subscription, before))) continue
      active.apply(queue, changed.subscription)
      return { ...changed, isNew: before === undefined }
    }
    throw changedElsewhere()
  }

  /** Pauses the subscription unless it has been changed since: the endpoint refused or failed the old one. */
  function pauseGone(subscription: Subscription, reason: string): void {
    if (!active.isDelivering(subscription)) return
    const { queue } = subscription
    log.warn({ queue, reason }, 'Webhook subscription paused')
    changeUnchanged(subscription, (before) => pauseSubscription(before, reason, now()))
  }

  function reseal(subscription: Subscription): void {
    changeUnchanged(subscription, (before) => hasOldSeals(before) && resealSubscription(before, vault, now()))
  }

  /** In the background, unless another write comes between. */
  function changeUnchanged(
    { queue, revision }: Subscription,
    apply: (before: Subscription) => Subscription | undefined | false,
  ): void {
    change(queue, (before) => {
      const isSame = before && !isMalformed(before) && before.revision === revision
      const subscription = isSame && apply(before)
      if (!subscription) throw new Error('The subscription has changed')
      return { subscription }
    }).catch(() => {})
  }

  async function find(queue: string): Promise<Subscription> {
    return existing(await store.find(queue))
  }

  function remove(queue: string): Promise<void> {
    return inTurn(queue, async () => {
      if (!(await store.find(queue))) throw new SluiceError('SUBSCRIPTION_NOT_FOUND')
      await store.remove(queue)
      active.apply(queue, undefined)
    })
  }

  async function stop(): Promise<void> {
    refresh.stop()
    await active.stop()
  }

  return {
    put: (to, request) =>
      change(to.queue, (before) => {
        const kept = before && !isMalformed(before) ? before : undefined
        return replaceSubscription(to, kept, request, vault, now())
      }),
    find,
    rotate: (queue, overlapS) =>
      change(queue, (before) => rotateSecret(existing(before), overlapS, vault, now())),
    remove,
    troubleOf: active.troubleOf,
    statsOf: active.statsOf,
    stats: () => ({ ...active.stats(), refused: store.refused() }),
    troubles: active.troubles,
    problem: refresh.problem,
    start: refresh.start,
    stop,
  }
}

function existing(stored: StoredSubscription | undefined): Subscription {
  if (!stored) throw new SluiceError('SUBSCRIPTION_NOT_FOUND')
  if (!isMalformed(stored)) return stored
  const detail =
    `The subscription of ${quoteName(stored.queue)} is malformed in Redis: ${stored.problem}. ` +
    'Replace it with PUT, or remove it with DELETE.'
  throw new SluiceError('SUBSCRIPTION_MALFORMED', { detail, outcome: 'not_executed' })
}
