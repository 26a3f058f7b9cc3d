/**
 * Groups the requests that wait for one representation of one job, and keeps the queues of all groups followed. One
 * observer serves every group, so that a waiting request costs nothing until an event concerns its job.
 */
import type { EventSubscription, QueueEvent, QueueEvents } from '../../../events/queue-events.ts'
import type { JobRef } from '../../job-id.ts'
import type { CachedJob } from '../cache-entry.ts'
import type { Include } from '../job-reader.ts'
import type { KnownJob } from './wait-state.ts'

export interface WaitGroup<Waiter> extends KnownJob {
  id: string
  ref: JobRef
  include: Include
  waiters: Set<Waiter>
  /** Number of open expectations: requests that are about to wait. */
  expected: number
  followed: FollowedQueue<Waiter>
  /** The check under way. */
  checking: Promise<void> | undefined
  /** Something happened since the last read began. */
  checkAgain: boolean
}

/** A queue with at least one group. */
export interface FollowedQueue<Waiter> {
  queue: string
  groups: Set<WaitGroup<Waiter>>
  /** Resolves when events arrive; rejects when Redis fails. */
  started: Promise<EventSubscription>
  /** The feed was not live at the last poll. Most outages last a moment, so one such poll causes no check. */
  wasDegraded: boolean
}

export interface WaitGroups<Waiter> {
  readonly size: number
  /** Returns the group of a job; a new group starts to receive its events. */
  groupOf(ref: JobRef, include: Include): WaitGroup<Waiter>
  /** Keeps the group of a job open until `release`. Resolves when events arrive; rejects when Redis fails. */
  expect(ref: JobRef): Promise<{ release(): void }>
  /** Closes the group if no request waits for it or is about to. */
  closeIfIdle(group: WaitGroup<Waiter>): void
  all(): Iterable<WaitGroup<Waiter>>
  followedQueues(): Iterable<FollowedQueue<Waiter>>
}

export interface WaitGroupsOptions<Waiter> {
  onEvent(group: WaitGroup<Waiter>, event: QueueEvent): void
  onGap(group: WaitGroup<Waiter>): void
  onClose(group: WaitGroup<Waiter>): void
}

const PLAIN: Include = { data: false, logs: false }
/** Prefixes of group ids by included fields: none, data, logs, both. No job id starts with a colon. */
const VARIANTS = ['', ':', '::', ':::']

export function createWaitGroups<Waiter>(
  events: Pick<QueueEvents, 'onAnyEvent' | 'retain'>,
  { onEvent, onGap, onClose }: WaitGroupsOptions<Waiter>,
): WaitGroups<Waiter> {
  const groups = new Map<string, WaitGroup<Waiter>>()
  const followedQueues = new Map<string, FollowedQueue<Waiter>>()

  events.onAnyEvent({
    onEvent(event) {
      if (event.key === undefined || !followedQueues.has(event.queue)) return
      const id = `${event.queue}:${event.key}`
      for (const variant of VARIANTS) {
        const group = groups.get(variant + id)
        if (group) onEvent(group, event)
      }
    },
    onGap(queue) {
      for (const group of followedQueues.get(queue)?.groups ?? []) onGap(group)
    },
  })

  function follow(queue: string): FollowedQueue<Waiter> {
    let followed = followedQueues.get(queue)
    if (!followed) {
      followed = { queue, groups: new Set(), started: events.retain(queue), wasDegraded: false }
      followedQueues.set(queue, followed)
    }
    return followed
  }

  function unfollow({ queue, started }: FollowedQueue<Waiter>): void {
    followedQueues.delete(queue)
    started.then(
      (subscription) => subscription.close(),
      () => {},
    )
  }

  function groupOf(ref: JobRef, include: Include): WaitGroup<Waiter> {
    const id = `${VARIANTS[(include.data ? 1 : 0) + (include.logs ? 2 : 0)]}${ref.queue}:${ref.key}`
    const existing = groups.get(id)
    if (existing) return existing
    const group = createGroup(id, ref, include, follow(ref.queue))
    group.followed.groups.add(group)
    groups.set(id, group)
    return group
  }

  async function expect(ref: JobRef): Promise<{ release(): void }> {
    const group = groupOf(ref, PLAIN)
    group.expected++
    let isExpected = true
    const release = () => {
      if (!isExpected) return
      isExpected = false
      group.expected--
      closeIfIdle(group)
    }
    try {
      await group.followed.started
    } catch (error) {
      release()
      throw error
    }
    return { release }
  }

  function closeIfIdle(group: WaitGroup<Waiter>): void {
    const { id, waiters, expected, followed } = group
    if (waiters.size > 0 || expected > 0 || groups.get(id) !== group) return
    groups.delete(id)
    followed.groups.delete(group)
    if (followed.groups.size === 0) unfollow(followed)
    onClose(group)
  }

  return {
    get size() {
      return groups.size
    },
    groupOf,
    expect,
    closeIfIdle,
    all: () => groups.values(),
    followedQueues: () => followedQueues.values(),
  }
}

function createGroup<Waiter>(
  id: string,
  ref: JobRef,
  include: Include,
  followed: FollowedQueue<Waiter>,
): WaitGroup<Waiter> {
  return {
    id,
    ref,
    include,
    waiters: new Set<Waiter>(),
    expected: 0,
    followed,
    checking: undefined,
    checkAgain: false,
    last: undefined as CachedJob | undefined,
    finalEvent: undefined as QueueEvent | undefined,
  }
}
