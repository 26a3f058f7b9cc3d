/**
 * The subscriptions of this process: which there are, kept as Redis has them, and a runner for each that is not paused. A
 * change made here holds at once. Another replica hears of a new one within a minute; of any other change with its next take,
 * which takes nothing under a revision that is not Redis' own.
 */

import { SluiceError } from '../../errors.ts'
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
import {
  pause,
  replace,
  rotate,
  type Subscription,
  type SubscriptionChange,
  type SubscriptionRequest,
  unseal,
} from './subscription.ts'
import type { SubscriptionStore } from './subscription-store.ts'

export interface SubscriptionManager {
  put(queue: string, request: SubscriptionRequest): Promise<SubscriptionChange & { isNew: boolean }>
  /** Rejects with SUBSCRIPTION_NOT_FOUND, as those below. */
  find(queue: string): Promise<Subscription>
  rotate(queue: string, overlapS: number): Promise<SubscriptionChange>
  remove(queue: string): Promise<void>
  /** Of this process; `undefined`: nothing is sent from here. */
  statsOf(queue: string): DeliveryWorkerStats | undefined
  stats(): DeliveryTotals
  /** Subscriptions that send nothing, or not well, and why. */
  troubles(): { queue: string; reason: string }[]
  /** Looks what there is in Redis: each time that it has come. */
  start(): void
  stop(): Promise<void>
}

/** Of this process, since its start. */
export interface DeliveryTotals extends Record<DeliveryOutcome, number> {
  subscriptions: number
  inFlight: number
}

export interface SubscriptionManagerDeps
  extends Pick<
    DeliveryWorkerDeps,
    'dispatcher' | 'webhookClient' | 'onLeased' | 'onWrite' | 'pauseAfterMs' | 'log'
  > {
  keyspace: Keyspace
  store: SubscriptionStore
  vault: Vault
  /** Most deliveries on their way at once, of all subscriptions. */
  maxInFlight: number
  /** For those on their way when the service ends. */
  graceMs: number
  /** Others write subscriptions as well. */
  hasOthers: boolean
}

const REFRESH_MS = 60_000
const LOAD_AGAIN_MS = 5_000
/** Two who write at once: the later one looks again. */
const MOST_TRIES = 5

export function createSubscriptionManager(deps: SubscriptionManagerDeps): SubscriptionManager {
  const { keyspace, store, vault, maxInFlight, graceMs, hasOthers, log } = deps
  const known = new Map<string, Subscription>()
  const runners = new Map<string, DeliveryWorker>()
  const leaving = new Set<Promise<void>>()
  let version: string | undefined
  let isStarting = false
  let timer: NodeJS.Timeout | undefined
  let isStopped = false

  const slots = createDeliverySlots(maxInFlight)
  const totals = { delivered: 0, retried: 0, failed: 0 }
  const onEnded = (how: DeliveryOutcome) => void totals[how]++

  function shareOf({ queue, concurrency, revision, rateLimit }: Subscription) {
    return {
      key: keyspace.deliveries(queue),
      limit: concurrency,
      owner: store.keyOf(queue),
      revision,
      rateLimit: rateLimit ?? undefined,
    }
  }

  /** From now on it is so; `undefined`: there is none. */
  function apply(queue: string, subscription: Subscription | undefined): void {
    const runner = runners.get(queue)
    if (runner && runner.subscription.revision === subscription?.revision) return
    if (runner) {
      runners.delete(queue)
      const stopping = runner.stop(graceMs).finally(() => leaving.delete(stopping))
      leaving.add(stopping)
    }
    if (!subscription) known.delete(queue)
    else known.set(queue, subscription)
    if (!subscription || subscription.paused || isStopped) return
    const unsealed = unseal(subscription, vault)
    if (unsealed)
      runners.set(queue, createDeliveryWorker(subscription, unsealed, shareOf(subscription), runnerDeps))
    else log.error({ queue }, 'webhook secrets were sealed with another SECRET')
  }

  async function refresh(): Promise<void> {
    const now = await store.version()
    if (now === version) return
    const all = new Map((await store.all()).map((one) => [one.queue, one]))
    for (const queue of new Set([...known.keys(), ...all.keys()])) apply(queue, all.get(queue))
    version = now
  }

  async function keepFresh(): Promise<void> {
    const isFresh = await refresh().then(
      () => true,
      () => false,
    )
    if (isStopped || (isFresh && !hasOthers)) return
    timer = setTimeout(() => void keepFresh(), isFresh ? REFRESH_MS : LOAD_AGAIN_MS)
  }

  /** What is there now, changed and written; again when another was first. */
  async function change<T extends { subscription: Subscription }>(
    queue: string,
    make: (before: Subscription | undefined) => T,
  ): Promise<T & { isNew: boolean }> {
    for (let tries = 1; tries <= MOST_TRIES; tries++) {
      const before = await store.find(queue)
      const made = make(before)
      if (!(await store.write(made.subscription, before))) continue
      apply(queue, made.subscription)
      return { ...made, isNew: before === undefined }
    }
    throw new SluiceError('OVERLOADED', {
      detail: 'Others change this subscription at the same time. Repeat after Retry-After.',
      outcome: 'not_executed',
    })
  }

  function onGone({ queue, revision }: Subscription, reason: string): void {
    if (runners.get(queue)?.subscription.revision !== revision) return
    log.warn({ queue, reason }, 'webhook paused')
    change(queue, (before) => {
      if (before?.revision !== revision) throw new Error('It was changed meanwhile')
      return { subscription: pause(before, reason, new Date()) }
    }).catch(() => {})
  }

  function onChanged(queue: string): void {
    store.find(queue).then(
      (subscription) => apply(queue, subscription),
      () => setTimeout(() => onChanged(queue), LOAD_AGAIN_MS).unref(),
    )
  }

  const runnerDeps: DeliveryWorkerDeps = { ...deps, slots, onEnded, onGone, onChanged }

  function existing(subscription: Subscription | undefined): Subscription {
    if (subscription) return subscription
    throw new SluiceError('SUBSCRIPTION_NOT_FOUND')
  }

  return {
    put: (queue, request) => change(queue, (before) => replace(queue, before, request, vault, new Date())),
    find: async (queue) => existing(await store.find(queue)),
    rotate: (queue, overlapS) =>
      change(queue, (before) => rotate(existing(before), overlapS, vault, new Date())),
    async remove(queue) {
      existing(await store.find(queue))
      await store.remove(queue)
      apply(queue, undefined)
    },
    statsOf: (queue) => runners.get(queue)?.stats(),
    stats: () => ({ subscriptions: known.size, inFlight: slots.inUse(), ...totals }),
    troubles() {
      return [...known.values()].flatMap(({ queue, paused }) => {
        if (paused) return [{ queue, reason: `is paused: ${paused.reason}` }]
        const sent = runners.get(queue)?.stats()
        if (!sent) return [{ queue, reason: 'sends nothing: its secrets were sealed with another SECRET' }]
        return sent.failing ? [{ queue, reason: `fails: ${sent.lastError}` }] : []
      })
    },
    start() {
      if (isStarting || isStopped) return
      isStarting = true
      clearTimeout(timer)
      void keepFresh().finally(() => {
        isStarting = false
      })
    },
    async stop() {
      isStopped = true
      clearTimeout(timer)
      for (const queue of [...runners.keys()]) apply(queue, undefined)
      await Promise.all(leaving)
    },
  }
}
