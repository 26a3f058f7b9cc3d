/**
 * Keeps the subscriptions of this process equal to those in Redis: reads all of them after each reconnect and,
 * with other replicas, once a minute, and a single one when a take finds that its revision changed. Failed
 * reads are retried until they succeed.
 */
import { asSluiceError, errorTable, toProblem } from '../../errors.ts'
import type { ActiveSubscriptions } from './active-subscriptions.ts'
import { nextRefreshMs } from './subscription-state.ts'
import type { SubscriptionStore } from './subscription-store.ts'

export interface SubscriptionRefresh {
  /** Refreshes now; call it after every connect. */
  start(): void
  /** Reads the subscription of one queue. */
  reload(queue: string): void
  /** Why the subscriptions are not, or not all, as in Redis, for an operator; `undefined`: they are. */
  problem(): string | undefined
  stop(): void
}

const RELOAD_RETRY_MS = 5_000

export function createSubscriptionRefresh(
  store: Pick<SubscriptionStore, 'version' | 'all' | 'find'>,
  active: Pick<ActiveSubscriptions, 'apply' | 'queues'>,
  hasOtherReplicas: boolean,
): SubscriptionRefresh {
  let appliedVersion: string | undefined
  let problem: string | undefined
  let isStarting = false
  let isStopped = false
  let timer: NodeJS.Timeout | undefined
  const reloadTimers = new Map<string, NodeJS.Timeout>()

  async function refresh(): Promise<void> {
    const version = await store.version()
    if (version !== undefined && version === appliedVersion) return
    const { subscriptions, isComplete } = await store.all()
    const stored = new Map(subscriptions.map((subscription) => [subscription.queue, subscription]))
    for (const queue of new Set([...active.queues(), ...stored.keys()]))
      active.apply(queue, stored.get(queue))
    appliedVersion = version
    problem = isComplete
      ? undefined
      : 'Redis has more subscriptions than WEBHOOK_MAX_SUBSCRIPTIONS, and some are not delivered. Raise it.'
  }

  /** A temporary failure is reported where Redis is. */
  function noteFailure(error: unknown): void {
    const failure = asSluiceError(error)
    if (!errorTable[failure.code].retryable)
      problem = `The subscriptions cannot be read. ${toProblem(failure).detail}`
  }

  async function refreshAndSchedule(): Promise<void> {
    const hasSucceeded = await refresh().then(
      () => true,
      (error) => {
        noteFailure(error)
        return false
      },
    )
    const delayMs = nextRefreshMs(hasSucceeded, hasOtherReplicas)
    if (isStopped || delayMs === undefined) return
    timer = setTimeout(() => void refreshAndSchedule(), delayMs)
  }

  function reload(queue: string): void {
    store.find(queue).then(
      (stored) => active.apply(queue, stored),
      () => {
        if (isStopped) return
        clearTimeout(reloadTimers.get(queue))
        reloadTimers.set(queue, setTimeout(reload, RELOAD_RETRY_MS, queue))
      },
    )
  }

  return {
    start() {
      if (isStarting || isStopped) return
      isStarting = true
      clearTimeout(timer)
      void refreshAndSchedule().finally(() => {
        isStarting = false
      })
    },
    reload,
    problem: () => problem,
    stop() {
      isStopped = true
      clearTimeout(timer)
      for (const reloadTimer of reloadTimers.values()) clearTimeout(reloadTimer)
    },
  }
}
