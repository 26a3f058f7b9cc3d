/**
 * Requests that wait for a job to finish or to change. They hold no connection and no timer of their own, and cost
 * nothing while nothing happens: an event of the job causes one check for all requests that wait for it.
 *
 *   wait → follow the queue → check ─ done ──────────────────────────────────────────────→ result
 *                                   └ pending ─ event, gap, or 1 s without live events → check …
 *                                             └ time is up, or the service closes ───────→ result
 *
 * The queue is followed before the first check, so that no event between the two is missed. wait-state.ts has the
 * outcomes of a check.
 */
import { SluiceError } from '../../../errors.ts'
import type { QueueEvent, QueueEvents } from '../../../events/queue-events.ts'
import type { JobRef } from '../../job-id.ts'
import { type Found, toCachedJob } from '../cache-entry.ts'
import type { Include } from '../job-reader.ts'
import type { JobResource } from '../job-resource.ts'
import type { Until } from '../polling.ts'
import type { StatusCache } from '../status-cache.ts'
import { createTimerWheel } from './timer-wheel.ts'
import { createWaitChecks } from './wait-checks.ts'
import { createWaitGroups, type WaitGroup } from './wait-groups.ts'
import { departedJob, isDone, lastSeen, noteEvent, outcomeOf } from './wait-state.ts'

export interface WaitRequest {
  ref: JobRef
  include: Include
  until: Until
  /** For `change`: the client's If-None-Match; if missing, the ETag that the first check finds. */
  etag?: string | undefined
  /** The job as it was stored, if this process has just stored it. */
  known?: JobResource | undefined
  waitMs: number
}

export interface Wait {
  /** Resolves when the job is done, when the time is up, or when the service closes; rejects when Redis fails. */
  result: Promise<Found>
  /** The client is gone: drops the request without settling `result`. */
  leave(): void
}

export interface Waiters {
  wait(request: WaitRequest): Wait
  /**
   * Starts to receive the events of a job that is about to be stored, so that its result is known even if the job is
   * not kept (removeOnComplete). Rejects when Redis fails.
   */
  expect(ref: JobRef): Promise<{ release(): void }>
  /** Number of requests that wait. */
  count(): number
  /** Resolves every request with its job as it is now. */
  close(): Promise<void>
}

interface Waiter {
  group: Group
  until: Until
  etag: string | undefined
  dueTick: number
  /** A check has found the job not done, so there is a result when the time is up. */
  isChecked: boolean
  resolve(found: Found): void
  reject(error: unknown): void
}

type Group = WaitGroup<Waiter>

const TICK_MS = 100
/** Without live events, each group is checked this often. */
const DEGRADED_POLL_MS = 1_000

export function createWaiters(
  statusCache: StatusCache,
  events: Pick<QueueEvents, 'feed' | 'onAnyEvent' | 'retain'>,
): Waiters {
  // The cache observes events first, so it has removed the outdated entry when an event causes a check.
  const groups = createWaitGroups<Waiter>(events, { onEvent, onGap: (group) => check(group), onClose })
  const { check, read } = createWaitChecks<Waiter>(statusCache, { onRead, onError })
  const wheel = createTimerWheel<Waiter>({ tickMs: TICK_MS, onDue: onTimeout, onTick })
  const unexplained = new Set<Group>()
  let waiting = 0
  let closing = false

  function onEvent(group: Group, event: QueueEvent): void {
    noteEvent(group, event)
    check(group)
  }

  function onRead(group: Group, reading: Found): void {
    const outcome = outcomeOf(reading, group, events.feed(group.ref.queue))
    const found =
      outcome === 'departed' ? { ...reading, job: departedJob(group, statusCache.maxAnswerBytes) } : reading
    const { job } = found
    if (outcome === 'present') group.last = lastSeen(job)
    if (outcome === 'unexplained') unexplained.add(group)
    for (const waiter of group.waiters) {
      waiter.isChecked = true
      waiter.etag ??= job?.etag
      const isPending = outcome === 'unexplained' || !isDone(waiter.until, waiter.etag, job)
      if (closing || !isPending) finish(waiter, () => waiter.resolve(found))
    }
  }

  function onError(group: Group, error: unknown): void {
    // Requests that have been checked once keep waiting until Redis recovers or their time is up.
    for (const waiter of group.waiters) if (!waiter.isChecked) finish(waiter, () => waiter.reject(error))
  }

  function finish(waiter: Waiter, settle: () => void): void {
    const { group } = waiter
    if (!group.waiters.delete(waiter)) return
    wheel.remove(waiter, waiter.dueTick)
    waiting--
    settle()
    groups.closeIfIdle(group)
  }

  function onClose(group: Group): void {
    unexplained.delete(group)
    if (groups.size === 0) wheel.stop()
  }

  function onTick(tick: number): void {
    const toCheck = [...unexplained]
    unexplained.clear()
    for (const group of toCheck) check(group)
    if (tick % (DEGRADED_POLL_MS / TICK_MS) === 0) checkDegraded()
  }

  function checkDegraded(): void {
    for (const followed of groups.followedQueues()) {
      const isDegraded = !events.feed(followed.queue)?.isLive
      if (isDegraded && followed.wasDegraded) for (const group of followed.groups) check(group)
      followed.wasDegraded = isDegraded
    }
  }

  function onTimeout(waiter: Waiter): void {
    finish(waiter, () => {
      if (waiter.isChecked) read(waiter.group).then(waiter.resolve, waiter.reject)
      else waiter.reject(new SluiceError('REDIS_TIMEOUT', { retryAfterS: 1 }))
    })
  }

  function wait({ ref, include, until, etag, known, waitMs }: WaitRequest): Wait {
    const group = groups.groupOf(ref, include)
    wheel.start()
    group.last ??= known && toCachedJob(known)
    const dueTick = wheel.dueIn(waitMs)
    let waiter!: Waiter
    const result = new Promise<Found>((resolve, reject) => {
      waiter = { group, until, etag, dueTick, isChecked: false, resolve, reject }
    })
    group.waiters.add(waiter)
    wheel.add(waiter, dueTick)
    waiting++
    check(group)
    return { result, leave: () => finish(waiter, () => {}) }
  }

  async function close(): Promise<void> {
    closing = true
    for (const group of groups.all()) check(group)
    await Promise.all([...groups.all()].map(({ checking }) => checking))
    wheel.stop()
  }

  return { wait, expect: groups.expect, count: () => waiting, close }
}
